"""Text that an attacker can put into a log, shown as text: markup, formulas, escapes, in every field of a line."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.dashboards.conftest import Visit, denylog, serving, visiting

NODE = "<img/src=x/onerror=alert(1)>**bold**:material/home:"
PREFIX = "=cmd|'/C calc'!A0 ![x](http://192.0.2.1/x.png)"
ESCAPE = "\x1b[31mred"
LINE = (
    "2026-11-20T{hour}:00:00.000000+00:00 {node} kernel: [   12.000000] {prefix}: IN=eth0 OUT=cali0123456789a "
    "SRC=192.0.2.7 DST=198.51.100.7 LEN=60 TOS=0x00 PREC=0x00 TTL=63 ID=1 DF PROTO=TCP SPT=40000 DPT=443 "
    "WINDOW=64860 RES=0x00 SYN URGP=0 \n"
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A dashboard of a store that holds such text."""
    folder = tmp_path_factory.mktemp("hostile")
    log = folder / "syslog"
    lines = (("08", "worker-1", PREFIX + ESCAPE), ("09", NODE, PREFIX))
    log.write_text("".join(LINE.format(hour=hour, node=node, prefix=prefix) for hour, node, prefix in lines))
    denylog("ingest", "--store", str(folder / "store"), "--any-prefix", str(log))
    with serving(folder / "store") as found:
        yield found


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    """A visitor to whom nothing happens: no dialog, no request to elsewhere, no error."""
    with visiting(browser, address) as found:
        dialogs: list[str] = []
        requests: list[str] = []
        found.page.on("dialog", lambda dialog: dialogs.append(dialog.message))
        found.page.on("request", lambda request: requests.append(request.url))
        yield found
        strangers = [url for url in requests if not url.startswith((address, "data:", "blob:"))]
        assert (dialogs, strangers, found.errors) == ([], [], [])


@pytest.mark.parametrize("name", ["", "packets", "policies", "health"])
def test_hostile_text_is_text_on_every_page(visit: Visit, name: str) -> None:
    """No element is made of a node's name or of a prefix."""
    page = visit.open(f"/{name}?refresh=off&since=all")
    expect(page.locator("h1")).to_be_visible()
    assert page.locator("img[src='x']").count() == 0
    assert page.locator("img[src*='192.0.2.1']").count() == 0
    assert page.get_by_text("bold", exact=True).count() == 0


def test_hostile_text_is_shown_in_full(visit: Visit) -> None:
    """The opened packets show the node's name and the prefix as they are, the escape as an escape."""
    page = visit.open("/packets?refresh=off&since=all")
    bounds = page.locator('[data-testid="stDataFrame"]').first.bounding_box()
    assert bounds
    page.mouse.click(bounds["x"] + 18, bounds["y"] + 52)
    page.wait_for_function("location.search.includes('packet=')")
    visit.settled()
    expect(page.locator(".dl-facts")).to_contain_text(NODE)
    expect(page.locator(".dl-literal")).to_contain_text(PREFIX)
    bounds = page.locator('[data-testid="stDataFrame"]').first.bounding_box()
    assert bounds
    page.mouse.click(bounds["x"] + 18, bounds["y"] + 87)
    expect(page.locator(".dl-literal")).to_contain_text("\\x1b[31mred")


def test_formula_is_defused_in_the_file(visit: Visit, tmp_path: Path) -> None:
    """A cell that a spreadsheet would take for a formula begins with an apostrophe."""
    page = visit.open("/packets?refresh=off&since=all")
    page.get_by_test_id("stPopover").get_by_role("button").click()
    with page.expect_download() as found:
        page.get_by_role("button", name="CSV", exact=True).first.click()
    found.value.save_as(tmp_path / "file.csv")
    with open(tmp_path / "file.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert {row["prefix"][:2] for row in rows} == {"'="}
