"""What the image would contain starts on a node: no network, no HOME, a read-only root, a user that is not root."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.collector.live import lines, stored, wait_until
from tests.deploy.image import ADM, USER, Container, make, missing, run
from tests.deploy.manifests import REPOSITORY
from tests.deploy.test_image import PINNED, PROJECT, closure

pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(missing()), reason=missing())]
_PAGE = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1], timeout=5).read().decode())"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and the pinned packages that run-time needs."""
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["cluster"]]
    return make(tmp_path_factory.mktemp("image"), REPOSITORY, sorted(closure(wanted) & PINNED))


@pytest.fixture
def container(program: Path, tmp_path: Path) -> Container:
    """A node with a log that only root and adm may read, and an empty folder for the state."""
    log, state = tmp_path / "log", tmp_path / "state"
    log.mkdir()
    state.mkdir(mode=0o750)
    os.chown(state, USER, USER)
    syslog = log / "syslog"
    syslog.touch()
    syslog.chmod(0o640)
    os.chown(syslog, 0, ADM)
    return Container(program, log, state)


def test_follows_and_commits(container: Container) -> None:
    """The collector follows a file through a rotation, commits its rows, and SIGTERM to process 1 ends it well."""
    syslog = container.log / "syslog"
    syslog.write_text(lines(range(5)))
    with container.started("collect", "/var/log/syslog") as running:
        assert wait_until(container.state, 5) == list(range(5))
        syslog.rename(container.log / "syslog.1")
        syslog.write_text(lines(range(5, 9)))
        syslog.chmod(0o640)
        os.chown(syslog, 0, ADM)
        assert wait_until(container.state, 9) == list(range(9))
        code, said = running.stop(signal.SIGTERM)
    assert (code, said) == (0, "9 lines: 9 packets stored, 0 not ours, 0 rejected\n")
    assert stored(container.state) == list(range(9))


def test_writes_only_its_state(container: Container) -> None:
    """All that it makes is in the state's folder and belongs to its user: files 0640, folders 0750."""
    (container.log / "syslog").write_text(lines(range(5)))
    before = sorted(container.log.iterdir())
    with container.started("collect", "--once", "/var/log/syslog") as running:
        code, _ = running.stop(0)
    assert code == 0
    assert sorted(container.log.iterdir()) == before
    made = [(path, path.stat()) for path in container.state.rglob("*")]
    assert {(found.st_uid, found.st_gid) for _, found in made} == {(USER, USER)}
    modes = {(path.is_dir(), stat.S_IMODE(found.st_mode)) for path, found in made}
    assert modes == {(True, 0o750), (False, 0o640)}


def test_commands_answer(container: Container) -> None:
    """Questions are answered from a store that is mounted read-only, and commands tell their options."""
    (container.log / "syslog").write_text(lines(range(5)))
    with container.started("collect", "/var/log/syslog") as running:
        wait_until(container.state, 5)
        assert '"packets": 5' in container.ask("top", "-o", "json")
        running.stop(signal.SIGTERM)
    assert '"packets": 5' in container.ask("top", "-o", "json")
    for command in ("collect", "forward", "dashboard"):
        assert "--store" in container.ask(command, "--help")


def test_dashboard_starts(container: Container) -> None:
    """The dashboard serves its page from a store that is mounted read-only."""
    (container.log / "syslog").write_text(lines(range(5)))
    with container.started("collect", "--once", "/var/log/syslog") as running:
        running.stop(0)
    arguments = ("dashboard", "--port", "8501")
    with container.started(*arguments, scratch=True, state_read_only=True) as running:
        health, deadline = "", time.monotonic() + 40
        while health != "ok" and time.monotonic() < deadline and running.process.poll() is None:
            health = inside(running.pid, "http://127.0.0.1:8501/_stcore/health")
        assert health == "ok", running.stop(signal.SIGTERM)
        assert "<title>" in inside(running.pid, "http://127.0.0.1:8501/")


def inside(pid: int, url: str) -> str:
    """What a page of the program says, asked for in its network namespace; "" where nothing answers yet."""
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", _PAGE, url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout


@pytest.mark.slow
def test_pins_are_complete(program: Path, tmp_path: Path) -> None:
    """The list of pinned packages installs by its hashes, with nothing missing: what the Dockerfile does."""
    environment = tmp_path / "denylog"
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", str(environment))
    run(sys.executable, "-m", "venv", "--without-pip", str(environment))
    pins = str(REPOSITORY / "requirements" / "run.txt")
    run(*pip, "install", "--no-compile", "--require-hashes", "--only-binary", ":all:", "-r", pins)
    (wheel,) = (program.parents[2] / "wheels").iterdir()
    run(*pip, "install", "--no-compile", "--no-deps", "--no-index", str(wheel))
    run(*pip, "check")
    run(str(environment / "bin" / "denylog"), "--help")
