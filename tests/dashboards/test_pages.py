"""Every page where there is little to show: no store, an empty one, one of an older schema, one of a newer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from analytics import Writer
from dashboards import settings

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("forgotten")]
PAGES = ("overview", "sources", "packets", "findings", "policies", "health")


def page_of(name: str) -> None:
    """The script of one page; its text is what the test runs."""
    from dashboards.app import PAGES as ALL
    from dashboards.app import draw

    draw(next(page for page in ALL if page.name == name))


def drawn(name: str, store: Path) -> str:
    """All that a page says of a store; fails where it shows an exception."""
    settings.use(settings.Settings(store=str(store)))
    found = AppTest.from_function(page_of, default_timeout=60, kwargs={"name": name}).run()
    assert not found.exception
    return " ".join(str(element.proto.body) for element in found.get("html"))


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without rows."""
    folder = tmp_path_factory.mktemp("pages") / "store"
    with Writer(str(folder)):
        pass
    return folder


@pytest.mark.parametrize("name", PAGES)
def test_missing_store_is_one_sentence_and_the_command(name: str, tmp_path: Path) -> None:
    """Where there is no store, each page says so and shows the command that makes one."""
    said = drawn(name, tmp_path / "nowhere")
    assert "there is no store" in said
    assert f"denylog collect --store {tmp_path / 'nowhere'} /var/log/syslog" in said


@pytest.mark.parametrize("name", PAGES)
def test_empty_store_says_how_to_fill_it(name: str, empty: Path) -> None:
    """A store without packets shows no empty charts but what to do."""
    said = drawn(name, empty)
    assert "denylog ingest" in said
    assert "cannot be" not in said


@pytest.mark.parametrize("name", PAGES)
def test_older_store_says_which_command_upgrades_it(name: str, empty: Path, tmp_path: Path) -> None:
    """A store of an earlier schema version is not guessed at."""
    older = aged(empty, tmp_path, "1")
    said = drawn(name, older)
    assert "schema version 1" in said
    assert f"denylog ingest --store {older} /dev/null" in said


def test_newer_store_asks_for_a_newer_program(empty: Path, tmp_path: Path) -> None:
    """A store of a later schema version is left alone, and no command of this program is offered for it."""
    said = drawn("overview", aged(empty, tmp_path, "99"))
    assert "update denylog" in said
    assert "denylog ingest" not in said


def aged(store: Path, folder: Path, version: str) -> Path:
    """A copy of a store that says it has another schema version."""
    other = folder / "store"
    shutil.copytree(store, other)
    with Writer(str(other)) as writer:
        assert writer._connection
        writer._connection.execute(
            "UPDATE meta SET value = $version WHERE key = 'schema_version'", {"version": version}
        )
    return other
