"""How long the dashboard's first page takes in a browser on many packets: cold, warm, and after each of some filters.

    python bench/pages.py                     20 million packets
    python bench/pages.py --rows 2000000      fewer
    python bench/pages.py --store DIR         a store of your own

Painted is when its figures and its timeline are drawn; complete is when its lists, what is new and what the filters
offer are, too. Cold: the server answers for the first time, to a browser that never saw it. New browser: another such
one, a little later. Warm: that browser, once more. Each filter is chosen once, in a browser that shows the whole page;
nobody asked for it before. Needs what the browser tests need: Playwright and Debian's Chromium.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, where this file would hide a package

from playwright.sync_api import Browser, sync_playwright  # noqa: E402

from bench.world import store  # noqa: E402
from tests.dashboards.conftest import CHROMIUM, FLAGS, Visit, serving, visiting  # noqa: E402

PAGE = "/?refresh=off"
# A notice that something is wrong ends the waiting as well.
PAINTED = (
    "document.querySelector('[role=alert]') || (document.querySelector('.dl-tiles .dl-value') && "
    "document.querySelector('[data-testid=stVegaLiteChart] path'))"
)
CHANGED = "before => document.querySelector('.dl-tiles .dl-value')?.innerText !== before"
FILTERS = (("Protocol", "udp"), ("Destination port", "53"), ("Namespace", "team-1"))
# Of so many the fastest counts: the others waited for something else on this machine.
VISITS = 3

Seconds = tuple[float, float]


def opened(visit: Visit) -> Seconds:
    """Seconds until the page is painted, and until it is complete."""
    begin = time.perf_counter()
    visit.page.goto(visit.address + PAGE, wait_until="commit")
    return finished(visit, begin)


def chosen(visit: Visit, title: str, value: str) -> Seconds:
    """The same after a filter was chosen; the page counts as painted only when its figures are new."""
    opened(visit)
    before = visit.page.locator(".dl-tiles .dl-value").first.inner_text()
    box = visit.page.get_by_role("combobox", name=title, exact=True)
    box.click()
    box.press_sequentially(value)
    begin = time.perf_counter()
    box.press("Enter")
    visit.page.wait_for_function(CHANGED, arg=before, polling=20)
    return finished(visit, begin)


def finished(visit: Visit, begin: float) -> Seconds:
    """Wait for the page; ends the program where it shows an error."""
    visit.page.wait_for_function(PAINTED, polling=20)
    painted = time.perf_counter() - begin
    visit.settled()
    if visit.page.locator("[role=alert]").count():
        sys.exit(visit.page.locator("[role=alert]").first.inner_text())
    return painted, time.perf_counter() - begin


def tell(what: str, seconds: Seconds) -> None:
    """One line, with the load of the machine, without which the figures mean little."""
    print(f"{what:32} {seconds[0]:7.2f} {seconds[1]:9.2f} {os.getloadavg()[0]:6.1f}", flush=True)


def measure(browser: Browser, address: str) -> None:
    """Open, open again, filter."""
    with visiting(browser, address) as visit:
        tell("cold", opened(visit))
    with visiting(browser, address) as visit:
        tell("new browser", opened(visit))
        tell(f"warm, best of {VISITS}", min(opened(visit) for _ in range(VISITS)))
        for title, value in FILTERS:
            tell(f"{title} = {value}", chosen(visit, title, value))


def main() -> None:
    """Serve the store to a browser, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--store", type=Path)
    given = parser.parse_args()
    folder = given.store or Path(store(given.rows))
    print(f"{'overview, newest 24 hours':32} {'painted':>7} {'complete':>9} {'load':>6}")
    with serving(folder) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        measure(browser, address)
        browser.close()


if __name__ == "__main__":
    main()
