"""The command `forward`, and the option by which `collect` forwards as well.

Rule: what is wrong with a target or its certificates is told before anything is read or sent.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from analytics.filters import moment, where
from analytics.options import Exit, Zone, filter_options, local_zone, store_option
from collector import logs
from collector.commands import stopping
from collector.memory import prepare
from parser.options import DEFAULT_PREFIXES

if TYPE_CHECKING:
    from collector.forward.runner import Forwarder

_TICK_S = 0.25
_LEAVE_S = 10.0
"""Told to stop, a forwarder that is stuck (in the resolver, say) is left behind after so long."""


@click.command()
@click.argument("url", metavar="URL")
@store_option
@click.option("--once", is_flag=True, help="Send what is stored and not sent yet, then stop.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), metavar="N", help="At most N messages a second.")
@click.option("--state", type=click.Path(path_type=Path, dir_okay=False), envvar="DENYLOG_FORWARD_STATE",
              show_envvar=True, metavar="FILE", help="Where to keep how far the target is.")  # fmt: skip
@click.option("--zone", type=Zone(), default="local", show_default=True, help="Zone of RFC 3164 time stamps.")
@click.option("--rsyslog-config", is_flag=True, help="Print a configuration for rsyslog that forwards instead.")
@click.option("-v", "--verbose", is_flag=True, help="Also tell when the server is connected, and the sum at the end.")
@logs.log_options
@filter_options
def forward(url: str, store: str, state: Path | None, rsyslog_config: bool, **given: Any) -> None:
    """Send stored packets to a syslog server, each once, and go on where it stopped.

    URL is udp://, tcp://, tls://, relp:// or relps:// with a host and perhaps a port; settings follow as a query:
    format (rfc5424, rfc3164, cef, ecs), ca, cert, key, server-name, fingerprint, min-tls, framing, facility, size,
    window, sd-id. Only RELP tells that a message has arrived. With --since, packets from then on are sent again.

    \b
    denylog forward relps://logs.example.org?ca=/etc/ssl/ca.pem
    denylog forward --once --since 1h 'tcp://[2001:db8::7]:601?format=cef'
    denylog forward --rsyslog-config 'relp://logs.example.org'
    """
    from collector.forward import parse_target

    target = parse_target(url)
    if rsyslog_config:
        from collector.forward.rsyslog import drop_in

        click.echo(drop_in(target, words(given["prefix"])), nl=False)
        return
    verbose = given.pop("verbose")
    form, level = given.pop("log_format"), given.pop("log_level")
    logs.configure(form, "info" if verbose and level == "warning" else level)
    prepare(frugal=True)
    from collector.forward.marks import StateFile, default_state
    from collector.forward.runner import Forwarder, Order

    once, rate, zone = (given.pop(name) for name in ("once", "rate", "zone"))
    since = beginning(given.pop("since"))
    condition = where(given, now=datetime.now(UTC), zone=local_zone())
    order = Order(target=target, where=condition, zone=zone, rate=rate, since=since, once=once)
    with StateFile(state or default_state(store, target.name), store, target.name) as marks:
        forwarder = Forwarder(store, order, marks)
        run(forwarder)
    if verbose:
        counters = forwarder.counters
        logs.tell(f"{counters.sent:,} messages sent to {target.name}, {counters.cut:,} of them shortened")


def beginning(since: str | None) -> datetime | None:
    """The time that --since names; raises UsageError for none, and for one to come: the packets until then would be
    passed over."""
    if not since:
        return None
    now = datetime.now(UTC)
    try:
        found = moment(since, now, local_zone())
    except ValueError:
        raise click.UsageError(f"--since {since!r}: expected 5m, 1h30m or 7d ago, or ISO 8601") from None
    if found > now:
        raise click.UsageError(f"--since {since!r} is in the future; give a time in the past, for example 2h")
    return found


def words(prefixes: Sequence[str]) -> Sequence[str]:
    """The prefixes that rsyslog is to look for: rsyslog compares words, not patterns."""
    for prefix in prefixes:
        if prefix.startswith("!") or set(prefix) & set("*?["):
            raise click.UsageError(f"--prefix {prefix!r}: rsyslog compares words; give one without ! * ? [")
    return prefixes or DEFAULT_PREFIXES


def run(forwarder: Forwarder) -> None:
    """Forward in a thread of its own, so that a signal ends it also where the system's resolver hangs."""
    from collector.forward.outage import Unreachable

    errors: list[BaseException] = []

    def work() -> None:
        try:
            forwarder.run(stop)
        except BaseException as error:
            errors.append(error)

    with stopping() as (stop, _):
        thread = threading.Thread(target=work, name="forwarder", daemon=True)
        thread.start()
        while thread.is_alive() and not stop.is_set():
            thread.join(_TICK_S)
        thread.join(_LEAVE_S)
    for error in errors:
        if isinstance(error, Unreachable):
            logs.tell(str(error), logging.ERROR)
            raise SystemExit(Exit.TRY_AGAIN)
        raise error
