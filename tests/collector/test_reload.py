"""SIGHUP: the configuration is read again while lines flow, and none of them is lost or doubled."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from analytics import Reader
from tests.collector.live import REPOSITORY, LogWriter, line, lines, stored, wait_until

DENYLOG = (sys.executable, str(REPOSITORY / "cli.py"))


class Configured:
    """A collector with a configuration file, and what it says."""

    def __init__(self, folder: Path, text: str) -> None:
        self.file, self.store, self.said = folder / "denylog.toml", folder / "store", folder / "said"
        self.write(text)
        command = [*DENYLOG, "collect", "--config", str(self.file), "--store", str(self.store)]
        with self.said.open("w") as said:
            self.process = subprocess.Popen(command, stderr=said, stdin=subprocess.DEVNULL)

    def write(self, text: str) -> None:
        """Another configuration."""
        self.file.write_text(f'log-level = "info"\n[collect]\n{text}\n')

    def reload(self, says: str) -> None:
        """Tell it to read the file again, and wait for what it has to say."""
        before = self.said.read_text().count(says)
        self.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while self.said.read_text().count(says) <= before:
            assert time.monotonic() < deadline, self.said.read_text()
            time.sleep(0.05)


@contextmanager
def configured(folder: Path, text: str) -> Iterator[Configured]:
    """A collector that ends well."""
    found = Configured(folder, text)
    try:
        yield found
        found.process.send_signal(signal.SIGTERM)
        assert found.process.wait(30) == 0, found.said.read_text()
    finally:
        found.process.kill()
        found.process.wait()


AGAIN = "the configuration was read again"


def test_no_line_is_lost_or_doubled(tmp_path: Path) -> None:
    """Eight reloads while a daemon writes, rotation included: each line is stored once."""
    log = tmp_path / "log"
    writer = LogWriter(log)
    writer.start()
    with configured(tmp_path, f'files = ["{log}"]') as collector:
        assert wait_until(collector.store, 1)
        for number in range(8):
            collector.write(f'files = ["{log}", "{tmp_path}/other{number % 2}"]\nkeep = "{900 + number}d"')
            collector.reload(AGAIN)
            if number == 4:
                log.rename(tmp_path / "log.1")
                writer.reopen()
        count = writer.finish()
        assert wait_until(collector.store, count) == list(range(count))
    with Reader(str(collector.store)) as reader:
        assert reader.rows("SELECT bool_and(lines = packets + others + rejects) FROM positions").rows == [(True,)]


def test_prefix_and_files_change_at_once(tmp_path: Path) -> None:
    """A prefix, and a file, that are added hold from the reload on; a file that is taken away is read no further."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text(lines([0]) + line(1).replace("calico-packet", "other-word"))
    two.write_text(lines([10]))
    with configured(tmp_path, f'files = ["{one}"]') as collector:
        assert wait_until(collector.store, 1) == [0]
        collector.write(f'files = ["{one}", "{two}"]\nlog-prefix = ["calico-packet", "other-word"]')
        collector.reload(AGAIN)
        with one.open("a") as log:
            log.write(line(2).replace("calico-packet", "other-word"))
        assert wait_until(collector.store, 3) == [0, 2, 10]
        collector.write(f'files = ["{two}"]')
        collector.reload(AGAIN)
        with one.open("a") as log:
            log.write(line(3))
        with two.open("a") as log:
            log.write(line(11))
        assert wait_until(collector.store, 4) == [0, 2, 10, 11]
        collector.write(f'files = ["{one}", "{two}"]')
        collector.reload(AGAIN)
        assert wait_until(collector.store, 5) == [0, 2, 3, 10, 11]
    assert stored(collector.store) == [0, 2, 3, 10, 11]


WRONG = {
    "file = []": "'file' in [collect] is no key",
    "keep = 3": "expected a text in quotes",
    "x =": "is no TOML",
    "": "nothing to follow",
}


def test_a_wrong_configuration_changes_nothing(tmp_path: Path) -> None:
    """What will not do is said, and the collector goes on as it was."""
    log = tmp_path / "log"
    log.write_text(lines([0]))
    with configured(tmp_path, f'files = ["{log}"]') as collector:
        assert wait_until(collector.store, 1) == [0]
        for number, (text, says) in enumerate(WRONG.items(), start=1):
            collector.write(text)
            collector.reload("the configuration stays as it was")
            assert says in collector.said.read_text()
            with log.open("a") as file:
                file.write(line(number))
            assert wait_until(collector.store, number + 1) == list(range(number + 1))


def test_what_takes_a_restart_is_said(tmp_path: Path) -> None:
    """A changed store is named as what cannot change while running."""
    log = tmp_path / "log"
    log.write_text(lines([0]))
    with configured(tmp_path, f'files = ["{log}"]') as collector:
        assert wait_until(collector.store, 1) == [0]
        collector.write(f'files = ["{log}"]\nmetrics = "127.0.0.1:1"')
        collector.reload("metrics stays as it was: it takes a restart to change it")
