"""How long the dashboard's first page takes in a browser on many packets: first paint cold and warm, and filters.

    python bench/pages.py                     20 million packets
    python bench/pages.py --rows 2000000      fewer

A page is painted when its figures and its timeline are drawn, and complete when its lists, what is new and what the
filters offer are, too. Needs what the browser tests need: Playwright and Debian's Chromium.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, where this file would hide a package

from playwright.sync_api import Page, sync_playwright  # noqa: E402

from bench.world import store  # noqa: E402
from tests.dashboards.conftest import CHROMIUM, FLAGS, Visit, serving, visiting  # noqa: E402

PAINTED = (
    "document.querySelector('.dl-tiles .dl-value') && document.querySelector('[data-testid=stVegaLiteChart] path')"
)
FILTERS = (("Protocol", "udp"), ("Destination port", "53"), ("Namespace", "team-1"))
PATIENCE_MS = 300_000


def opened(visit: Visit, path: str) -> tuple[float, float]:
    """Seconds until the page is painted, and until it is complete."""
    begin = time.perf_counter()
    visit.page.goto(visit.address + path)
    visit.page.wait_for_function(PAINTED, polling=20)
    painted = time.perf_counter() - begin
    visit.settled()
    return painted, time.perf_counter() - begin


def chosen(page: Page, visit: Visit, title: str, value: str) -> tuple[float, float]:
    """The same after a filter was chosen; the figures of the page before count as painted only when they are new."""
    before = page.locator(".dl-tiles .dl-value").first.inner_text()
    box = page.get_by_role("combobox", name=title, exact=True)
    box.click()
    box.press_sequentially(value)
    begin = time.perf_counter()
    box.press("Enter")
    new = "before => [...document.querySelectorAll('.dl-value')].slice(0, 1).some(found => found.innerText !== before)"
    page.wait_for_function(new, arg=before, polling=20)
    painted = time.perf_counter() - begin
    visit.settled()
    return painted, time.perf_counter() - begin


def tell(what: str, seconds: tuple[float, float]) -> None:
    """One line, with the load of the machine, without which the figures mean little."""
    print(f"{what:32} {seconds[0]:7.2f} {seconds[1]:9.2f} {os.getloadavg()[0]:6.1f}")


def main() -> None:
    """Open, open again, filter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    folder = Path(store(parser.parse_args().rows))
    print(f"{'overview, newest 24 hours':32} {'painted':>7} {'complete':>9} {'load':>6}")
    with serving(folder) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for what in ("cold", "warm"):
            with visiting(browser, address) as visit:
                visit.page.set_default_timeout(PATIENCE_MS)
                tell(what, opened(visit, "/?refresh=off"))
        for title, value in FILTERS:
            with visiting(browser, address) as visit:
                visit.page.set_default_timeout(PATIENCE_MS)
                opened(visit, "/?refresh=off")
                tell(f"{title} = {value}", chosen(visit.page, visit, title, value))
        browser.close()


if __name__ == "__main__":
    main()
