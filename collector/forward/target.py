"""Where packets go: one URL names the server, how to talk to it and what to send it.

Rule: everything in the URL is checked before anything is sent; settings that contradict each other are refused in one
sentence. What is shown of a URL, anywhere, is `Target.name`: never its user part or its query.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from collector.settings import CollectorError

FORMATS = ("rfc5424", "rfc3164", "cef", "ecs")

# IANA: 514/udp syslog, 6514/tcp syslog-tls (RFC 5425). 514/tcp is what syslog daemons listen on (RFC 6587, 3.2); RELP
# has no number of its own, rsyslog's documentation uses 2514.
PORTS = {"udp": 514, "tcp": 514, "tls": 6514, "relp": 2514, "relps": 2514}
STREAMS, RELP, SECURE = ("tcp", "tls"), ("relp", "relps"), ("tls", "relps")

# RFC 5424, 6.2.1. What Calico's Log action writes is a message of the kernel, so that is the facility.
FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"),
    *("ntp", "audit", "alert", "clock", *(f"local{number}" for number in range(8))),
)

# RFC 5424, 6.1: receivers take at least 480 octets and should take 2 048. RFC 5425 raises that to 8 192, which is also
# what rsyslog takes by default. A UDP datagram holds 65 507 octets over IPv4.
SMALLEST, UDP_SIZE, STREAM_SIZE, LARGEST = 480, 2048, 8192, 65_507

# Messages that may be unacknowledged; after a kill at most so many are sent twice.
WINDOW, WIDEST = 1000, 100_000

# RFC 5612 sets this enterprise number aside for documentation; denylog has none of its own (docs/forwarding.md).
SD_ID = "denylog@32473"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How the server is known and how we show ourselves; paths are those of PEM files, "" is not given.

    `server_name`: the name that its certificate must carry, the host of the URL if "". `fingerprint`: SHA-256 of its
    certificate in hexadecimal, instead of a chain up to `ca` (RFC 5425, 5.2). `minimum`: lowest version of TLS.
    """

    ca: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""
    fingerprint: str = ""
    minimum: str = "1.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One server: `size` is the longest message in octets, `window` how many may be unacknowledged (RELP)."""

    scheme: str
    host: str
    port: int
    format: str = "rfc5424"
    framing: str = "octets"
    facility: int = 0
    sd_id: str = SD_ID
    size: int = STREAM_SIZE
    window: int = WINDOW
    tls: Tls | None = None

    @property
    def name(self) -> str:
        """The URL without anything secret: what is logged, and what the cursor is kept under."""
        return f"{self.scheme}://{_bracketed(self.host)}:{self.port}"


def _choice(*names: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in names:
            raise ValueError(" or ".join(names))
        return text

    return convert


def _number(low: int, high: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text[:9]) <= high):
            raise ValueError(f"a number from {low} to {high}")
        return int(text)

    return convert


def _facility(text: str) -> int:
    if text not in FACILITIES:
        raise ValueError("a facility such as kern, daemon or local4")
    return FACILITIES.index(text)


# RFC 5424, 6.3.2: name@<private enterprise number>, at most 32 printable characters without =, blank, ] and ".
_SD_ID = re.compile(r"(?=.{3,32}\Z)[!#-<>-?A-\\^-~]+@\d+(?:\.\d+)*")


def _sd_id(text: str) -> str:
    if not _SD_ID.fullmatch(text):
        raise ValueError("NAME@NUMBER with your private enterprise number, for example denylog@32473")
    return text


_SHA256 = re.compile(r"(?:sha-?256[:=])?((?:[0-9a-f]{2}:?){31}[0-9a-f]{2})", re.IGNORECASE)


def _fingerprint(text: str) -> str:
    found = _SHA256.fullmatch(text)
    if not found:
        raise ValueError("SHA256: and 64 hexadecimal digits, as `openssl x509 -fingerprint -sha256` prints them")
    return found[1].replace(":", "").lower()


def _path(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError("the path of a file")
    return text


def _host_name(text: str) -> str:
    if not _can_be_a_host(text):
        raise ValueError("the name in the server's certificate")
    return text


def _can_be_a_host(text: str) -> bool:
    """Printable, and of labels that DNS can carry: 1 to 63 octets (RFC 1035, 2.3.4), names in other scripts too."""
    try:
        text.encode("idna")
    except UnicodeError:
        return False
    return bool(text) and text.isprintable() and " " not in text


@dataclass(frozen=True, slots=True)
class Parameter:
    """One setting of the query: the schemes it goes with, and how its text is read (ValueError: what is expected)."""

    schemes: tuple[str, ...]
    convert: Callable[[str], Any]
    help: str


PARAMETERS = {
    "format": Parameter(tuple(PORTS), _choice(*FORMATS), "rfc5424 (default), rfc3164, cef or ecs"),
    "framing": Parameter(STREAMS, _choice("octets", "lines"), "octets (RFC 6587 octet counting, default) or lines"),
    "facility": Parameter(tuple(PORTS), _facility, "syslog facility: kern (default), local4, …"),
    "sd-id": Parameter(tuple(PORTS), _sd_id, f"name of the structured data (default {SD_ID})"),
    "size": Parameter(tuple(PORTS), _number(SMALLEST, LARGEST), "longest message in octets (8192; UDP 2048)"),
    "window": Parameter(RELP, _number(1, WIDEST), "RELP messages without acknowledgement (default 1000)"),
    "ca": Parameter(SECURE, _path, "PEM file of the authorities that the server's certificate may come from"),
    "cert": Parameter(SECURE, _path, "PEM file of our own certificate, for servers that ask for one"),
    "key": Parameter(SECURE, _path, "PEM file of the key to it, unless it is in the same file"),
    "server-name": Parameter(SECURE, _host_name, "name that the server's certificate must carry (default: the host)"),
    "fingerprint": Parameter(SECURE, _fingerprint, "SHA256:… of the server's certificate, instead of an authority"),
    "min-tls": Parameter(SECURE, _choice("1.2", "1.3"), "lowest version of TLS (default 1.2)"),
}

_TLS_FIELDS = {name: name.replace("-", "_") for name in ("ca", "cert", "key", "server-name", "fingerprint")}
_TLS_FIELDS["min-tls"] = "minimum"
_FIELDS = {name: name.replace("-", "_") for name in ("format", "framing", "facility", "sd-id", "size", "window")}


def parse_target(url: str) -> Target:
    """The target that a URL names; raises CollectorError for what is none, or contradicts itself."""
    shown = redacted(url)
    scheme, host, port, query = _split(url, shown)
    given = _parameters(query, scheme, shown)
    _refuse_contradictions(given, shown)
    tls = Tls(**{_TLS_FIELDS[name]: value for name, value in given.items() if name in _TLS_FIELDS})
    fields = {_FIELDS[name]: value for name, value in given.items() if name in _FIELDS}
    fields.setdefault("size", UDP_SIZE if scheme == "udp" else STREAM_SIZE)
    return Target(scheme=scheme, host=host, port=port, tls=tls if scheme in SECURE else None, **fields)


def redacted(url: str) -> str:
    """A URL as it may be shown: without its user part, where a password may stand, and without its query."""
    head, separator, rest = url.partition("://")
    if not separator:
        return repr(url.partition("?")[0].rpartition("@")[2])
    return repr(head + separator + re.split(r"[/?#]", rest.rpartition("@")[2], maxsplit=1)[0])


def _split(url: str, shown: str) -> tuple[str, str, int, str]:
    wanted = "expected udp://, tcp://, tls://, relp:// or relps:// and a host"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise CollectorError(shown, f"is no target: {error}", wanted) from None
    if parts.scheme not in PORTS or not host:
        raise CollectorError(shown, "is no target", f"{wanted}, for example relp://logs.example.org:2514")
    if "@" in parts.netloc:
        raise CollectorError(shown, "names a user or a password, which syslog does not have", "use cert= and key=")
    if parts.path not in ("", "/") or parts.fragment:
        raise CollectorError(shown, "has a path, which a syslog server does not", "settings come after `?`")
    if port == 0:
        raise CollectorError(shown, "is no target: port 0", "name a port from 1 to 65535")
    if not _can_be_a_host(unquote(host)):
        raise CollectorError(shown, "is no target: no host can have that name", wanted)
    return parts.scheme, unquote(host), port or PORTS[parts.scheme], parts.query


def _parameters(query: str, scheme: str, shown: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    # A plus sign is one: these are names of files, not a form of a web page.
    for name, text in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True):
        parameter = PARAMETERS.get(name)
        if parameter is None:
            raise CollectorError(shown, f"unknown setting {name!r}", f"the settings are {', '.join(PARAMETERS)}")
        if scheme not in parameter.schemes:
            where = " and ".join(f"{allowed}://" for allowed in parameter.schemes)
            raise CollectorError(shown, f"{name} contradicts {scheme}://", f"it goes with {where} only")
        if name in given:
            raise CollectorError(shown, f"{name} is given twice", "give it once")
        try:
            given[name] = parameter.convert(text)
        except ValueError as error:
            raise CollectorError(shown, f"{name} is {text!r}", f"expected {error}") from None
    return given


_EXCLUSIVE = (
    ("fingerprint", "ca", "a fingerprint names one certificate, whoever signed it"),
    ("fingerprint", "server-name", "a fingerprint names one certificate, whatever name it carries"),
)


def _refuse_contradictions(given: dict[str, Any], shown: str) -> None:
    for one, other, why in _EXCLUSIVE:
        if one in given and other in given:
            raise CollectorError(shown, f"{one} and {other} contradict each other: {why}", "give one of them")
    if "key" in given and "cert" not in given:
        raise CollectorError(shown, "key is given without cert", "name the certificate that the key belongs to")
    if "sd-id" in given and given.get("format", "rfc5424") != "rfc5424":
        raise CollectorError(shown, f"sd-id contradicts format={given['format']}", "only rfc5424 has structured data")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
