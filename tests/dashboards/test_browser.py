"""The dashboard as a person sees it: the real program, the sample day, Debian's Chromium."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.dashboards.conftest import Visit, profile, serving, visiting, window

expect.set_options(timeout=45_000)
PAGES = {
    "overview": "Denied packets over time",
    "sources": "choose one to see what it tried",
    "packets": "newest 300 of more",
    "findings": "the gravest first",
    "policies": "Denied flows",
    "health": "lines read = stored + not ours + rejected",
}


@pytest.fixture(scope="module")
def address(sample_store: Path) -> Iterator[str]:
    """A dashboard of the sample day."""
    with serving(sample_store) as found:
        yield found


@pytest.fixture(scope="module")
def wide(browser: Browser) -> Iterator[BrowserContext]:
    """A browser on a desk."""
    with profile(browser) as context:
        yield context


@pytest.fixture(scope="module")
def narrow(browser: Browser) -> Iterator[BrowserContext]:
    """A browser in a hand, in the dark."""
    with profile(browser, width=390, dark=True) as context:
        yield context


@pytest.fixture
def visit(wide: BrowserContext, address: str) -> Iterator[Visit]:
    """A window of its own; whatever happens, the console has no errors."""
    with window(wide, address) as found:
        yield found
        assert not found.errors


def query(page: Page) -> dict[str, list[str]]:
    """The parameters of the address in the browser."""
    return parse_qs(urlparse(page.url).query)


def wait_for_query(page: Page, name: str, value: str) -> None:
    """Until the address says so."""
    page.wait_for_function(
        "([name, value]) => new URLSearchParams(location.search).getAll(name).includes(value)", arg=[name, value]
    )


@pytest.mark.parametrize("name", PAGES)
def test_page_renders_without_errors(visit: Visit, name: str) -> None:
    """Each page shows the sample day, and the console stays silent."""
    page = visit.open(f"/{name}?refresh=off")
    expect(page.get_by_text(PAGES[name]).first).to_be_visible()
    expect(page.locator("h1")).to_have_text(name.capitalize())
    expect(page.locator('[role="alert"]')).to_have_count(0)
    visit.keep(name)


@pytest.mark.parametrize("name", PAGES)
def test_narrow_page_has_no_sideways_scroll(narrow: BrowserContext, address: str, name: str) -> None:
    """On 390 pixels, in the dark, everything fits the width."""
    with window(narrow, address) as visit:
        page = visit.open(f"/{name}?refresh=off")
        expect(page.get_by_text(PAGES[name]).first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        main = "document.querySelector('[data-testid=stMain]')"
        assert page.evaluate(f"{main}.scrollWidth <= {main}.clientWidth")
        visit.keep(f"{name}-390-dark")
        assert not visit.errors


def test_filter_goes_into_the_link_and_the_link_restores_it(wide: BrowserContext, address: str, visit: Visit) -> None:
    """A value that is typed into a filter is in the URL; the URL shows a second visitor the same packets."""
    page = visit.open("/overview?refresh=off")
    box = page.get_by_role("combobox", name="Destination port")
    box.click()
    box.press_sequentially("22")
    page.get_by_role("option", name=re.compile(r"^22 ")).click()
    wait_for_query(page, "to-port", "22")
    visit.settled()
    expect(page.get_by_text("to-port: 22")).to_be_visible()
    shown = page.locator(".dl-tiles .dl-value").first.inner_text()
    with window(wide, address) as other:
        second = other.open(urlparse(page.url)._replace(scheme="", netloc="").geturl())
        expect(second.get_by_text("to-port: 22")).to_be_visible()
        expect(second.locator(".dl-tiles .dl-value").first).to_have_text(shown)
    assert shown != "4,424"


def test_click_on_a_bar_filters_by_it(visit: Visit) -> None:
    """The first bar of the top sources leads to that source's packets."""
    page = visit.open("/overview?refresh=off")
    chart = page.locator('[data-testid="stVegaLiteChart"]').nth(1)
    chart.locator('path[aria-roledescription="bar"]').first.click()
    page.wait_for_url(re.compile("from-ip="))
    visit.settled()
    expect(page.get_by_text(f"from-ip: {query(page)['from-ip'][0]}")).to_be_visible()


def click_first_row(visit: Visit, page: Page) -> None:
    """Choose the first packet of the table, and wait for what follows from it."""
    table = page.locator('[data-testid="stDataFrame"]').first
    bounds = table.bounding_box()
    assert bounds
    page.mouse.click(bounds["x"] + 18, bounds["y"] + 52)
    page.wait_for_url(re.compile("packet="))
    visit.settled()


def test_click_on_a_row_opens_the_packet(visit: Visit) -> None:
    """A row of the table opens that packet: its fields, and the line as it stands in the log."""
    page = visit.open("/packets?refresh=off&to-port=22")
    click_first_row(visit, page)
    expect(page.get_by_text("One packet")).to_be_visible()
    line = page.locator(".dl-literal").inner_text()
    assert "calico-packet" in line
    assert "DPT=22 " in line
    visit.keep("packet")


def test_packet_leads_to_the_policies_that_denied_it(visit: Visit) -> None:
    """From a packet one click goes to the explanation, which names policies and proposes one that would allow it."""
    page = visit.open("/policies?refresh=off&to-port=5432&from-ip=198.51.100.11")
    click_first_row(visit, page)
    expect(page.get_by_role("heading", name="Why it was denied")).to_be_visible()
    expect(page.get_by_role("heading", name="What would allow it")).to_be_visible()
    assert "kind: NetworkPolicy" in page.locator(".dl-literal").first.inner_text()
    visit.keep("explained")


def test_finding_shows_its_evidence(visit: Visit) -> None:
    """The gravest finding opens with its packets in SQL, and leads to them."""
    page = visit.open("/findings?refresh=off")
    bounds = page.locator('[data-testid="stDataFrame"]').first.bounding_box()
    assert bounds
    page.mouse.click(bounds["x"] + 18, bounds["y"] + 52)
    page.wait_for_url(re.compile("finding="))
    visit.settled()
    expect(page.get_by_text("Its packets in SQL")).to_be_visible()
    visit.keep("finding")
    page.get_by_role("button", name="Show its packets").click()
    page.wait_for_url(re.compile("/packets"))
    visit.settled()
    expect(page.locator("h1")).to_have_text("Packets")


@pytest.mark.parametrize("form", ["CSV", "JSON"])
def test_download_holds_what_is_shown(visit: Visit, tmp_path: Path, form: str) -> None:
    """The file has the packets of the filter and no others, with all their columns."""
    page = visit.open("/packets?refresh=off&to-port=22&since=all")
    page.get_by_test_id("stPopover").get_by_role("button").click()
    with page.expect_download() as found:
        page.get_by_role("button", name=form, exact=True).first.click()
    file = tmp_path / "file"
    found.value.save_as(file)
    assert found.value.suggested_filename == f"denylog-packets.{form.lower()}"
    text = file.read_text()
    rows = list(csv.DictReader(text.splitlines())) if form == "CSV" else json.loads(text)
    assert rows
    assert {str(row["destination_port"]) for row in rows} == {"22"}
    assert {"tcp_window", "source_mac", "in_interface"} <= set(rows[0])


def test_filters_go_along_to_another_page(visit: Visit) -> None:
    """A link of the navigation keeps time and filters."""
    page = visit.open("/overview?refresh=off&protocol=udp&since=all")
    page.get_by_role("link", name="Packets").click()
    page.wait_for_url(re.compile("/packets.*protocol=udp"))
    assert query(page)["since"] == ["all"]


def test_unusable_link_is_told_in_a_sentence(visit: Visit) -> None:
    """What a link cannot mean is left out and said, with what was expected; hostile text in it is text."""
    page = visit.open("/overview?refresh=off&to-port=abc&zone=Mars&%3Cimg%20src=x%3E=1&node=**bold**%20:material/home:")
    expect(page.get_by_text("to-port 'abc' was left out: expected a port")).to_be_visible()
    expect(page.get_by_text("zone 'Mars' was left out")).to_be_visible()
    expect(page.get_by_text("node: **bold** :material/home:")).to_be_visible()
    assert page.locator("img[src=x]").count() == 0


def test_time_of_a_link_is_shown_in_the_chosen_zone(visit: Visit) -> None:
    """The same packets in another zone: the times move, the count does not."""
    page = visit.open("/overview?refresh=off&zone=Asia/Tokyo")
    last = page.locator(".dl-tiles > div").last
    expect(last.get_by_text("21 Nov 2026 08:56:37")).to_be_visible()


def test_two_visitors_do_not_disturb_each_other(wide: BrowserContext, address: str) -> None:
    """Two windows with different filters each keep their own, also when one changes."""
    with window(wide, address) as one, window(wide, address) as two:
        first = one.open("/overview?refresh=off&protocol=udp")
        second = two.open("/overview?refresh=off&protocol=tcp")
        shown = first.locator(".dl-value").first.inner_text()
        second.get_by_role("button", name="Clear", exact=True).click()
        second.wait_for_function("!location.search.includes('protocol')")
        two.settled()
        expect(first.locator(".dl-value").first).to_have_text(shown)
        assert query(first)["protocol"] == ["udp"]
        assert one.errors == two.errors == []


def test_page_loads_nothing_from_elsewhere(browser: Browser, address: str) -> None:
    """Every request of the page goes to the dashboard itself."""
    with visiting(browser, address) as visit:
        asked: list[str] = []
        visit.page.on("request", lambda request: asked.append(request.url))
        visit.open("/overview?refresh=off")
        strangers = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
        assert asked
        assert not strangers
