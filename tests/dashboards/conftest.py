"""A store with the sample day, a dashboard that serves it, and a browser to look with; one of each for a module.

Rule: nothing is mocked: the program runs as a person starts it, and Debian's Chromium shows it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from dashboards import desk, settings

ROOT = Path(__file__).parents[2]
DENYLOG = (sys.executable, str(ROOT / "cli.py"))
CHROMIUM = "/usr/bin/chromium"
# No graphics card, no updates, no calls home: the browser speaks to the dashboard and to nobody else.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_MS = 45_000
SCREENSHOTS = ROOT / "var" / "screenshots"


def denylog(*arguments: str) -> None:
    """A run of the command that must succeed; 1 means findings."""
    done = subprocess.run(
        [*DENYLOG, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, env={**os.environ, "TZ": "UTC"}
    )
    assert done.returncode in (0, 1), done.stderr


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Each test has its own settings, and a desk of its own."""
    before = settings.current()
    yield
    desk.desk_of(settings.current().store).close()
    settings.use(before)
    desk.desk_of.cache_clear()


@pytest.fixture(scope="session")
def sample_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample day: packets, inventory, policies, and which policy denied what."""
    store = tmp_path_factory.mktemp("dashboard") / "store"
    at = ("--store", str(store))
    denylog("ingest", *at, "samples/syslog.1.gz", "samples/syslog")
    denylog("inventory", "import", *at, "samples/inventory.json")
    denylog("policies", "snapshot", *at, "--at", "2026-11-14T00:00+00:00", "samples/policies")
    denylog("policies", "attribute", *at)
    return store


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(store: Path, *options: str, **environment: str) -> Iterator[str]:
    """A running dashboard; its address. It has no HOME to lean on."""
    port = free_port()
    given = {name: value for name, value in os.environ.items() if name != "HOME"}
    process = subprocess.Popen(
        [*DENYLOG, "dashboard", "--store", str(store), "--port", str(port), *options],
        env={**given, "TZ": "UTC", **environment},
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_up(address, process)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stderr:
            process.stderr.close()


def wait_until_up(address: str, process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """Until it answers; fails where it ended instead."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None, process.stderr and process.stderr.read()
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{address} does not answer")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    if not shutil.which(CHROMIUM):
        pytest.skip(f"needs {CHROMIUM}")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@dataclass
class Visit:
    """A browser's window on the dashboard, and what its console said meanwhile."""

    page: Page
    address: str
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def open(self, path: str) -> Page:
        """Go there and wait until it is drawn."""
        self.page.goto(self.address + path)
        return self.settled()

    def settled(self) -> Page:
        """Wait until the script has run and everything it made is drawn."""
        self.page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')
        self.page.wait_for_function("!document.querySelector('[data-testid=stSkeleton], [data-stale=true]')")
        return self.page

    def keep(self, name: str) -> None:
        """A picture for people, in a folder that git ignores."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")


@contextmanager
def profile(browser: Browser, *, width: int = 1280, dark: bool = False) -> Iterator[BrowserContext]:
    """A browser as one person has it, who was nowhere yet; its windows share what was loaded once."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", accept_downloads=True
    )
    try:
        yield context
    finally:
        context.close()


@contextmanager
def window(context: BrowserContext, address: str) -> Iterator[Visit]:
    """One more window of a browser: for the dashboard a new session."""
    page = context.new_page()
    try:
        yield Visit(page, address)
    finally:
        page.close()


@contextmanager
def visiting(browser: Browser, address: str) -> Iterator[Visit]:
    """A window of its own, as a new visitor has it."""
    with profile(browser) as context, window(context, address) as visit:
        yield visit
