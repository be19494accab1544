"""The command `dashboard`: checks how the dashboard may be reached, then serves it.

Rule: nobody else's machine reaches it unless the person who starts it says so and says who may come in; Streamlit is
imported when the command runs, not before.
"""

from __future__ import annotations

import os
from datetime import tzinfo
from ipaddress import ip_address
from pathlib import Path

import click

from analytics.options import Zone, store_option
from dashboards.settings import DEFAULT_HOST, DEFAULT_PORT, Settings

PASSWORD = "DENYLOG_DASHBOARD_PASSWORD"
# Shorter ones are guessed: the gate answers a wrong one after a second, but many can be tried at once.
_SHORTEST_PASSWORD = 8


@click.command()
@store_option
@click.option("--port", type=click.IntRange(1, 65535), help=f"Port; {DEFAULT_PORT} or the next free one if not given.")
@click.option(
    "--host",
    default=DEFAULT_HOST,
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen on. Another than this machine's own needs --expose and a way to let people in.",
)
@click.option("--expose", is_flag=True, help="Yes, listen on an address that other machines reach.")
@click.option(
    "--password-file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help=f"File with the password that the browser asks for; or set {PASSWORD}.",
)
@click.option(
    "--auth-header",
    metavar="NAME",
    help="Header by which an authenticating proxy names the user (X-Forwarded-User); no request without it.",
)
@click.option("--zone", type=Zone(), default="local", show_default=True, help="Time zone that pages begin with.")
@click.option("--geoip", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
              help="Countries or networks of addresses, in MaxMind's format.")  # fmt: skip
def dashboard(
    store: str,
    port: int | None,
    host: str,
    expose: bool,
    password_file: str | None,
    auth_header: str | None,
    zone: tzinfo,
    geoip: str | None,
) -> None:
    """Show the store in a browser: who is denied, by which policy, and what to do.

    It only reads, and only this machine reaches it unless --expose and a password or a proxy say otherwise.

    \b
    denylog dashboard --store /var/lib/denylog --port 8501
    DENYLOG_DASHBOARD_PASSWORD=… denylog dashboard --host 0.0.0.0 --expose
    denylog dashboard --host 0.0.0.0 --expose --auth-header X-Forwarded-User
    """
    from dashboards.server import DashboardError, address, free_port, serve

    secret = password(password_file)
    check_reach(host, expose=expose, guarded=bool(secret or auth_header))
    try:
        settings = Settings(
            store=os.path.abspath(os.path.expanduser(store)) if "://" not in store else store,
            zone=getattr(zone, "key", None) or "UTC",
            geoip=os.path.abspath(geoip) if geoip else "",
            host=host,
            port=free_port(host, port or DEFAULT_PORT, only=port is not None),
            password=secret,
            auth_header=auth_header or "",
        )
        click.echo(f"denylog: dashboard at {address(settings)} (Ctrl-C ends it)", err=True)
        serve(settings)
    except DashboardError as error:
        raise click.ClickException(str(error)) from None


def password(file: str | None) -> str:
    """The password from the file or the environment; empty where there is none. Raises click.UsageError."""
    if file is None:
        return _long_enough(os.environ.get(PASSWORD, ""), PASSWORD)
    try:
        return _long_enough(Path(file).read_text(encoding="utf-8").strip("\r\n"), file, required=True)
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{file}: cannot be read as text ({error})") from None


def _long_enough(secret: str, where: str, *, required: bool = False) -> str:
    if (required or secret) and len(secret) < _SHORTEST_PASSWORD:
        raise click.UsageError(f"{where}: a password has at least {_SHORTEST_PASSWORD} characters")
    return secret


def check_reach(host: str, *, expose: bool, guarded: bool) -> None:
    """Raise click.UsageError where other machines could reach the dashboard and nobody decided who may."""
    try:
        local = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local and not expose:
        raise click.UsageError(f"--host {host} lets other machines in; say so with --expose")
    if not local and not guarded:
        raise click.UsageError(
            f"--host {host} needs a password ({PASSWORD} or --password-file) or --auth-header of a proxy that checks"
        )
