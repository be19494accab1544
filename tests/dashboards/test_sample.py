"""The pages' scripts on the sample day and on odd stores, without a browser: what they say, offer and survive."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from analytics import Reader
from analytics.filters import where
from dashboards import questions, settings
from tests.analytics.test_geo import mmdb
from tests.dashboards.conftest import denylog
from tests.dashboards.test_pages import PAGES, page_of

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("forgotten")]
SCANNER = "203.0.113.66"


def visit(name: str, store: Path, geoip: str = "", **parameters: str) -> AppTest:
    """The script of a page, run with these parameters of its link; fails where it shows an exception."""
    settings.use(settings.Settings(store=str(store), geoip=geoip))
    page = AppTest.from_function(page_of, default_timeout=90, kwargs={"name": name})
    for key, value in parameters.items():
        page.query_params[key.replace("_", "-")] = value
    page.run()
    assert not page.exception
    return page


def said(page: AppTest) -> str:
    """All HTML of a page."""
    return " ".join(str(element.proto.body) for element in page.get("html"))


def offered(page: AppTest, title: str) -> list[str]:
    """What a filter offers."""
    return next(list(box.options) for box in page.multiselect if box.label == title)


def test_source_shows_its_place_and_its_findings(sample_store: Path, tmp_path: Path) -> None:
    """The page of an address has the country and network of the user's file, and what stands out of it."""
    record = {
        "country": {"iso_code": "ZZ", "names": {"en": "Nowhere"}},
        "autonomous_system_number": 64500,
        "autonomous_system_organization": "Example Net",
    }
    file = tmp_path / "both.mmdb"
    file.write_bytes(mmdb({"203.0.113.0/24": record}))
    page = visit("sources", sample_store, str(file), address=SCANNER)
    assert "Nowhere, AS64500 Example Net" in said(page)
    titles = [cell for table in page.dataframe for cell in table.value.get("title", [])]
    assert any(title.startswith(f"{SCANNER} tried 200 ports") for title in titles)
    assert all(SCANNER in title for title in titles)


def test_filters_offer_what_there_is(sample_store: Path) -> None:
    """Ports, namespaces and policies of the sample day are offered with their counts, also on a filtered page."""
    page = visit("packets", sample_store, to_port="22")
    assert any(option.startswith("5432  (") for option in offered(page, "Destination port"))
    assert any(option.startswith("shop  (") for option in offered(page, "Namespace"))
    assert any(option.startswith("shop/default-deny  (") for option in offered(page, "Denied or logged by policy"))


@pytest.mark.parametrize("split", questions.SERIES)
def test_timeline_has_every_packet_whatever_colours_it(sample_store: Path, split: str) -> None:
    """Bars of each series add up to the total, in bars of a zone that is half an hour off."""
    every = where({}, now=datetime.now(UTC), zone=UTC)
    with Reader(str(sample_store), zone="Asia/Kolkata") as reader:
        total = questions.totals(reader, every)
        for seconds in (10, 3600, 86_400):
            found = questions.by_time(reader, every, seconds, split).dicts()
            assert sum(row["packets"] for row in found) == total.packets
            assert len({row["series"] for row in found}) <= 8


def test_days_begin_at_midnight_also_when_clocks_change(sample_store: Path) -> None:
    """Bars of a day are of the zone's days: on the day on which clocks are set back it has 25 hours."""
    store = sample_store.parent / "clocks"
    log = sample_store.parent / "clocks.log"
    line = (
        "2026-10-{time} worker-1 kernel: [   12.000000] calico-packet: IN=eth0 OUT=cali0123456789a SRC=192.0.2.7 "
        "DST=198.51.100.7 LEN=60 TOS=0x00 PREC=0x00 TTL=63 ID=1 DF PROTO=TCP SPT=40000 DPT=443 WINDOW=64860 RES=0x00 "
        "SYN URGP=0 \n"
    )
    # In Berlin the 25th begins at 22:00 UTC of the 24th and ends at 23:00 UTC.
    times = ("24T22:00:00", "25T00:30:00", "25T01:30:00", "25T22:59:59", "25T23:00:00")
    log.write_text("".join(line.format(time=f"{time}.000000+00:00") for time in times))
    denylog("ingest", "--store", str(store), str(log))
    every = where({}, now=datetime.now(UTC), zone=UTC)
    with Reader(str(store), zone="Europe/Berlin") as reader:
        days = questions.by_time(reader, every, 86_400, "none").rows
        hours = questions.by_time(reader, every, 3600, "none").rows
    assert [row[2] for row in days] == [4, 1]
    assert [row[2] for row in hours] == [1, 1, 1, 1, 1]
    page = visit("overview", store, zone="Europe/Berlin", since="2026-10-24", until="2026-10-26")
    assert "Denied packets over time" in said(page)


def test_store_that_goes_away_and_comes_back(sample_store: Path, tmp_path: Path) -> None:
    """A page that is open says that the store is gone, and shows it again when it is back."""
    store = tmp_path / "store"
    shutil.copytree(sample_store, store)
    page = visit("overview", store)
    assert "4,424" in said(page)
    store.rename(tmp_path / "away")
    page.run()
    assert not page.exception
    assert "there is no store" in said(page)
    (tmp_path / "away").rename(store)
    page.run()
    assert not page.exception
    assert "4,424" in said(page)


@pytest.fixture(scope="module")
def inventory_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that knows a cluster and no packet."""
    store = tmp_path_factory.mktemp("inventory") / "store"
    denylog("inventory", "import", "--store", str(store), "samples/inventory.json")
    return store


@pytest.mark.parametrize("name", PAGES)
def test_store_with_a_cluster_but_no_packet_says_how_to_fill_it(name: str, inventory_only: Path) -> None:
    """Nothing denied yet is no error: the page says which command reads a log."""
    page = visit(name, inventory_only)
    assert "denylog collect" in said(page)


@pytest.mark.parametrize(
    "parameters",
    [
        {"node": "x" * 100_000},
        {"node": "\x00'; DROP TABLE packets; --"},
        {"namespace": "\u202e名前空間-🚀"},
        {"from_ip": "::ffff:203.0.113.66"},
        {"to_port": "9" * 5000},
        {"since": "9999-12-31T23:59:59+00:00"},
        {"since": "99999999999d"},
        {"since": "2026-11-20", "until": "2020-01-01"},
        {"packet": "nowhere:1"},
        {"finding": "no-such"},
        {"address": "1.2.3"},
        {"split": "namespace", "since": "all"},
    ],
    ids=lambda parameters: next(iter(parameters)) + "=" + ascii(next(iter(parameters.values())))[:20],
)
def test_odd_link_is_answered(parameters: dict[str, str], sample_store: Path) -> None:
    """Whatever a link holds, the page says something and shows no exception."""
    places = {"packet": "packets", "finding": "findings", "address": "sources"}
    page = places.get(next(iter(parameters)), "overview")
    assert said(visit(page, sample_store, **parameters))
