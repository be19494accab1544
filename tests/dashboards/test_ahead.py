"""What is asked before a page is: just what the page asks, and nothing that can go wrong."""

from __future__ import annotations

import gc
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboards import ahead, desk, settings
from tests.dashboards.conftest import DENYLOG, ROOT, free_port, wait_until_up
from tests.dashboards.test_pages import PAGES
from tests.dashboards.test_sample import visit

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Each test has its own settings."""
    before = settings.current()
    yield
    gc.unfreeze()
    desk.desk_of(settings.current().store).close()
    settings.use(before)
    desk.desk_of.cache_clear()


@pytest.mark.parametrize("parameters", [{}, {"since": "all", "to-port": "5432", "split": "namespace"}])
def test_page_finds_all_its_answers(sample_store: Path, parameters: dict[str, str]) -> None:
    """After the questions of the overview were asked ahead, it asks no others, with whatever link."""
    settings.use(settings.Settings(store=str(sample_store)))
    ahead.ask("overview", {name: [value] for name, value in parameters.items()})
    answers = desk.desk_of(str(sample_store))._answers
    known = dict(answers)
    assert len(known) > 5
    visit("overview", sample_store, **parameters)
    assert dict(answers) == known


@pytest.mark.parametrize("name", PAGES)
def test_nothing_depends_on_it(tmp_path: Path, name: str) -> None:
    """Without a store, or with a link that means nothing, it says nothing: the page will."""
    settings.use(settings.Settings(store=str(tmp_path / "nowhere")))
    ahead.ask(name, {"since": ["yesterday"], "to-port": ["x"], "stranger": ["1"]})


@pytest.mark.parametrize("pause_s", [0, 0.5, 1])
def test_server_ends_in_the_midst_of_it(sample_store: Path, pause_s: float) -> None:
    """A signal while pages are being loaded and questions asked ends the program in order, without a word."""
    port = free_port()
    command = [*DENYLOG, "dashboard", "--store", str(sample_store), "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, cwd=ROOT, text=True) as process:
        wait_until_up(f"http://127.0.0.1:{port}", process)
        time.sleep(pause_s)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(said.splitlines()) == 1, said
