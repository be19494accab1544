"""Starts Streamlit in this process with our settings, and says where it is.

Rule: nothing of the user's machine is read or written for it: no configuration of Streamlit's, no home folder, no usage
statistics, no network but the one port.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from dashboards.desk import desk_of
from dashboards.gate import Door, Gate
from dashboards.settings import Settings, use
from dashboards.theme import options as theme_options

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

APP = Path(__file__).with_name("app.py")
ICON = Path(__file__).with_name("icon.svg")
# The names of the pages in the address.
PAGES = ("overview", "sources", "packets", "findings", "policies", "health")
# How many ports after the default one are tried where nobody asked for a certain one.
_PORTS_TRIED = 50


class DashboardError(Exception):
    """The dashboard cannot start: `what` is wrong, and what to `do`."""

    def __init__(self, what: str, do: str) -> None:
        super().__init__(what, do)
        self.what = what
        self.do = do

    def __str__(self) -> str:
        return f"{self.what}; {self.do}"


def free_port(host: str, wanted: int, *, only: bool) -> int:
    """The wanted port, or (unless `only` that will do) the first free one after it; raises DashboardError."""
    for port in [wanted] if only else range(wanted, min(wanted + _PORTS_TRIED, 65536)):
        try:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
            return port
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise DashboardError(f"cannot listen on {host}:{port} ({error.strerror})", "choose another") from error
    raise DashboardError(f"port {wanted} is in use", "choose another with --port")


def address(settings: Settings) -> str:
    """The address to open in a browser on this machine."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def streamlit_options(settings: Settings) -> dict[str, object]:
    """Streamlit's options, all of them from here."""
    return {
        "browser.gatherUsageStats": False,
        "client.toolbarMode": "minimal",
        # Its CSV would hold cells that a spreadsheet takes for formulas; ours does not.
        "client.disableDataExport": True,
        "client.showErrorDetails": "none",
        "client.showErrorLinks": False,
        "client.allowedOrigins": [],
        "global.developmentMode": False,
        "logger.level": "error",
        "logger.hideWelcomeMessage": True,
        "runner.magicEnabled": False,
        "server.address": settings.host,
        "server.port": settings.port,
        "server.headless": True,
        "server.fileWatcherType": "none",
        "server.runOnSave": False,
        "server.enableXsrfProtection": True,
        "server.enableCORS": True,
        "server.enableStaticServing": False,
        "server.maxUploadSize": 1,
        "server.showEmailPrompt": False,
        # A tab that was closed gives back what it held after this many seconds.
        "server.disconnectedSessionTTL": 60,
        **theme_options(),
    }


def _forget_users_streamlit(empty: str) -> None:
    """Keep Streamlit from options in the environment and in the user's files: it looks in the home and working folder.

    The dashboard needs neither, and `empty`, a private empty folder, makes a missing HOME no problem.
    """
    for name in [name for name in os.environ if name.startswith("STREAMLIT_")]:
        del os.environ[name]
    os.environ["HOME"] = empty
    os.chdir(empty)
    os.environ["STREAMLIT_BROWSER_GATHER_USAGE_STATS"] = "false"


def serve(settings: Settings) -> None:
    """Serve until a signal ends it; raises DashboardError where it cannot start."""
    use(settings)
    with tempfile.TemporaryDirectory(prefix="denylog-home-") as empty:
        _forget_users_streamlit(empty)
        try:
            _run(settings)
        finally:
            desk_of(settings.store).close()


def _run(settings: Settings) -> None:
    import streamlit as st  # noqa: PLC0415 - reads the environment when it is imported
    from starlette.middleware import Middleware  # noqa: PLC0415

    for name in ("streamlit", "uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.ERROR)
    app = st.App(APP, routes=front_page(), middleware=[Middleware(Gate, door=Door(settings))], lifespan=_at_once)
    signal.signal(signal.SIGTERM, _interrupt)
    with suppress(KeyboardInterrupt):
        app.run(config=streamlit_options(settings))


def _ahead(page: str, parameters: Mapping[str, Sequence[str]]) -> None:
    """Let a thread load the pages, and ask what this one will ask."""

    def run() -> None:
        from dashboards import ahead  # noqa: PLC0415 - imports Streamlit, see serve, and takes a second

        ahead.ask(page, parameters)

    # No daemon: Python must not end while one of its threads is in the middle of loading.
    threading.Thread(target=run, name="ahead").start()


@asynccontextmanager
async def _at_once(app: object) -> AsyncIterator[None]:
    """Begin to load what pages need, and send every answer when it is made, small as it may be.

    asyncio asks the kernel for that (TCP_NODELAY) only on sockets that name their protocol, which Streamlit's does not:
    the second half of an answer would wait for the browser to acknowledge the first, up to 40 ms. Connections inherit
    the option from the socket that listens.
    """
    loop = asyncio.get_running_loop()
    create = loop.create_server

    async def prompt(*arguments: Any, sock: socket.socket | None = None, **options: Any) -> asyncio.Server:
        if sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return await create(*arguments, sock=sock, **options)

    loop.create_server = prompt  # type: ignore[method-assign]
    _ahead(PAGES[0], {})
    yield


# Without it Streamlit's page looks for its server below its own path first, which the browser reports as errors.
_BASE = "<script>window.__streamlit = {BACKEND_BASE_URL: location.origin, MAIN_PAGE_BASE_URL: location.origin}</script>"


def front_page() -> list[BaseRoute]:
    """Streamlit's page with our name and icon, at the address of each of our pages."""
    from starlette.responses import HTMLResponse, RedirectResponse  # noqa: PLC0415 - after Streamlit, see serve
    from starlette.routing import Route  # noqa: PLC0415
    from streamlit.file_util import get_static_dir  # noqa: PLC0415

    icon = base64.b64encode(ICON.read_bytes()).decode()
    page = Path(get_static_dir(), "index.html").read_text(encoding="utf-8")
    for there, ours in (
        ("<head>", f"<head>{_BASE}"),
        ("<title>Streamlit</title>", "<title>denylog</title>"),
        ("./favicon.png", f"data:image/svg+xml;base64,{icon}"),
        ("./static/", "/static/"),
    ):
        page = page.replace(there, ours)

    async def answer(request: Request) -> Response:
        asked = request.query_params
        _ahead(request.url.path.strip("/") or PAGES[0], {name: asked.getlist(name) for name in asked})
        return HTMLResponse(page, headers={"cache-control": "no-cache"})

    async def front(request: Request) -> Response:
        return RedirectResponse(f"/?{request.url.query}" if request.url.query else "/")

    # Streamlit has its first page at no other address than the root.
    return [Route("/", answer), Route(f"/{PAGES[0]}", front), *(Route(f"/{name}", answer) for name in PAGES[1:])]


def _interrupt(number: int, frame: FrameType | None) -> None:
    sys.exit(0)
