"""A configuration for the node's own rsyslog that forwards the kernel's lines about denied packets, without denylog.

Rule: what rsyslog cannot do with a target is refused here, not left out of the configuration in silence. Names of
parameters: rsyslog's documentation of omfwd, omrelp and queues; per-action TLS files need rsyslog 8.2108 or later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from collector.forward.target import FACILITIES, RELP, Target, Tls
from collector.settings import CollectorError

_TEMPLATES = {"rfc5424": "RSYSLOG_SyslogProtocol23Format", "rfc3164": "RSYSLOG_TraditionalForwardFormat"}
_KERNEL = 0
# GnuTLS priority strings; rsyslog's own default allows what the library allows.
_VERSIONS = {"1.2": "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2", "1.3": "NORMAL:-VERS-ALL:+VERS-TLS1.3"}
_QUEUE = (
    ("queue.type", "LinkedList"),
    ("queue.filename", "denylog-forward"),
    ("queue.maxDiskSpace", "1g"),
    ("queue.size", "50000"),
    ("queue.saveOnShutdown", "on"),
    # The queue's own bookkeeping is written after so many messages: what a crash of the node repeats.
    ("queue.checkpointInterval", "100"),
    ("queue.syncQueueFiles", "on"),
    ("action.resumeRetryCount", "-1"),
    ("action.resumeInterval", "10"),
    ("action.reportSuspension", "on"),
)

_TEXT = """\
# The kernel's lines about packets that Calico denied, forwarded to {name}.
# Written by `denylog forward --rsyslog-config`; place it in /etc/rsyslog.d/30-denylog.conf, check it with
# `rsyslogd -N1` and restart rsyslog. What the server does not take waits on the disk, at most 1 GB of it, in the folder
# that global(workDirectory="…") names: Debian and Ubuntu set /var/spool/rsyslog.
{modules}
if ($syslogfacility == {facility} and ({condition})) then {{
  action(
{action}
  )
}}
"""


def drop_in(target: Target, prefixes: Sequence[str]) -> str:
    """The text of a file for /etc/rsyslog.d; raises CollectorError for what rsyslog cannot do."""
    if target.format not in _TEMPLATES:
        what = f"format={target.format} is not one that rsyslog writes"
        raise CollectorError(target.name, what, f"ask for {' or '.join(_TEMPLATES)}, or let denylog forward")
    if target.facility != _KERNEL:
        what = f"facility={FACILITIES[target.facility]}: rsyslog forwards a message with the facility that it has"
        raise CollectorError(target.name, what, "leave it out")
    pairs = [*_relp(target)] if target.scheme in RELP else [*_omfwd(target)]
    lines = [f"    {name}={_quoted(value)}" for name, value in (*pairs, *_QUEUE)]
    return _TEXT.format(
        name=target.name,
        modules='module(load="omrelp")' if target.scheme in RELP else "",
        facility=_KERNEL,
        condition=" or ".join(f"$msg contains {_quoted(prefix)}" for prefix in prefixes),
        action="\n".join(lines),
    )


Pairs = Iterator[tuple[str, str]]


def _common(target: Target, kind: str) -> Pairs:
    yield "type", kind
    yield "name", "denylog"
    yield "target", target.host
    yield "port", str(target.port)
    yield "template", _TEMPLATES[target.format]


def _relp(target: Target) -> Pairs:
    yield from _common(target, "omrelp")
    if (tls := target.tls) is None:
        return
    if tls.fingerprint:
        what = "rsyslog's RELP compares SHA-1 fingerprints only"
        raise CollectorError(target.name, what, "name the authority with ca=")
    yield "tls", "on"
    yield "tls.authMode", "name"
    yield "tls.permittedPeer", tls.server_name or target.host
    yield "tls.priorityString", _VERSIONS[tls.minimum]
    yield from _given(("tls.caCert", tls.ca), ("tls.myCert", tls.cert), ("tls.myPrivKey", tls.cert and _key(tls)))


def _omfwd(target: Target) -> Pairs:
    yield from _common(target, "omfwd")
    yield "protocol", "udp" if target.scheme == "udp" else "tcp"
    if target.scheme == "udp":
        return
    yield "TCP_Framing", "octet-counted" if target.framing == "octets" else "traditional"
    if (tls := target.tls) is None:
        return
    yield "streamDriver", "gtls"
    yield "streamDriverMode", "1"
    yield "streamDriverAuthMode", "x509/fingerprint" if tls.fingerprint else "x509/name"
    yield "streamDriverPermittedPeers", _fingerprint(tls) or tls.server_name or target.host
    yield "gnutlsPriorityString", _VERSIONS[tls.minimum]
    yield from _given(
        ("streamDriver.CAFile", tls.ca),
        ("streamDriver.CertFile", tls.cert),
        ("streamDriver.KeyFile", tls.cert and _key(tls)),
    )


def _given(*pairs: tuple[str, str]) -> Pairs:
    return (pair for pair in pairs if pair[1])


def _key(tls: Tls) -> str:
    return tls.key or tls.cert


def _fingerprint(tls: Tls) -> str:
    digits = tls.fingerprint.upper()
    pairs = (digits[place : place + 2] for place in range(0, len(digits), 2))
    return f"SHA256:{':'.join(pairs)}" if digits else ""


def _quoted(text: str) -> str:
    """A RainerScript string: backslash, quote and dollar are escaped."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'
