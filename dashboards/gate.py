"""Who may speak to the dashboard: checks each request and each WebSocket before Streamlit sees it.

Rule: without a password or an authenticating proxy only this machine's own names are answered, so that a web page in
the user's browser cannot reach the dashboard under a name of its own (DNS rebinding). What is refused learns nothing.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING

from dashboards.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "denylog_session"
_OWN_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
# A wrong password costs this long, which makes guessing slow.
_WRONG_PASSWORD_S = 1.0
_HEALTH = "/_stcore/health"

# Nothing is loaded from elsewhere and no other page may frame this one. Streamlit styles elements in place; Vega
# compiles expressions, as does the table. Links to other sites must not carry the addresses in our URL along.
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws: wss:; worker-src 'self' blob:; "
        b"object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A refusal: HTTP status, what it says, and further headers."""

    status: int
    text: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


_UNKNOWN_NAME = Answer(403, "This dashboard answers only to localhost; see `denylog dashboard --help`.\n")
_NO_PROXY = Answer(403, "This dashboard is reached through its authenticating proxy.\n")
_WHO = Answer(401, "A password is needed.\n", ((b"www-authenticate", b'Basic realm="denylog", charset="UTF-8"'),))


@dataclass(frozen=True, slots=True)
class Door:
    """The decision, apart from the way in which it is told; `session` is what the cookie of this process holds."""

    settings: Settings
    session: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def refusal(self, headers: Iterable[tuple[bytes, bytes]]) -> Answer | None:
        """Why a request with these headers is refused; None where it may pass."""
        given = {name.lower().decode("latin-1"): value.decode("latin-1") for name, value in headers}
        if self.settings.auth_header:
            return None if given.get(self.settings.auth_header.lower(), "").strip() else _NO_PROXY
        if self.settings.password:
            return None if self._knows(given) else _WHO
        return None if _host(given.get("host", "")) in _OWN_NAMES | {self.settings.host.lower()} else _UNKNOWN_NAME

    def _knows(self, given: dict[str, str]) -> bool:
        """The password itself, or the cookie that it brought: Safari sends no password with a WebSocket."""
        password = _password(given.get("authorization", ""))
        same = hmac.compare_digest(password.encode(), self.settings.password.encode())
        return same or hmac.compare_digest(_cookie(given.get("cookie", "")).encode(), self.session.encode())

    def additions(self) -> tuple[tuple[bytes, bytes], ...]:
        """Headers for every answer that passes."""
        if not self.settings.password:
            return _HEADERS
        cookie = f"{COOKIE}={self.session}; Path=/; HttpOnly; SameSite=Strict"
        return (*_HEADERS, (b"set-cookie", cookie.encode()))


def _host(text: str) -> str:
    """The name in a Host header, without its port."""
    name, _, port = text.rpartition(":")
    return (name if name and port.isdigit() else text).lower().rstrip(".")


def _password(header: str) -> str:
    """The password in an Authorization header of the kind Basic (RFC 7617); the user's name does not matter."""
    kind, _, value = header.partition(" ")
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2] if kind.lower() == "basic" else ""
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


class Gate:
    """The ASGI middleware in front of Streamlit."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request pass, or answer it here."""
        if scope["type"] not in ("http", "websocket") or scope["path"].endswith(_HEALTH):
            await self._app(scope, receive, send)
            return
        answer = self._door.refusal(scope["headers"])
        if answer:
            await _refuse(scope, receive, send, answer)
            return
        await self._app(scope, receive, self._with_headers(send))

    def _with_headers(self, send: Send) -> Send:
        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._door.additions()]
            await send(message)

        return told


async def _refuse(scope: Scope, receive: Receive, send: Send, answer: Answer) -> None:
    if answer is _WHO and any(name.lower() == b"authorization" for name, _ in scope["headers"]):
        await asyncio.sleep(_WRONG_PASSWORD_S)
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *answer.headers, *_HEADERS]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.text.encode()})
