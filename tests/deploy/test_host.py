"""What a plain server gets: the systemd unit, the rsyslog and the logrotate example."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.manifests import DEPLOY, parsed

UNIT = DEPLOY / "systemd" / "denylog.service"
EXPOSURE = 20  # tenths, of a hundred; systemd calls less than 2.0 "OK"


def needs(program: str) -> None:
    """Skip where a program is not installed."""
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")


def settings() -> dict[str, str]:
    """The [Service] section, the last of each key."""
    reader = configparser.RawConfigParser(strict=False, comment_prefixes=("#",))
    reader.optionxform = str  # type: ignore[assignment,method-assign]
    reader.read(UNIT)
    return dict(reader["Service"])


@pytest.mark.system
def test_unit_is_valid(tmp_path: Path) -> None:
    """systemd has nothing to say about the unit but that denylog is not installed here."""
    needs("systemd-analyze")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/denylog/bin/denylog", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.system
def test_unit_is_confined() -> None:
    """systemd's own review gives the unit an exposure below 2.0."""
    needs("systemd-analyze")
    command = ["systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE}", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout[-200:]


def test_unit_command_line() -> None:
    """The command line takes what ExecStart gives it, and the store is the folder that systemd makes, 0750."""
    found = settings()
    program, *arguments = shlex.split(found["ExecStart"])
    assert program == "/opt/denylog/bin/denylog"
    assert f"--store=/var/lib/{found['StateDirectory']}" in arguments
    assert (found["StateDirectoryMode"], found["UMask"]) == ("0750", "0027")
    parsed(arguments)


def test_unit_user() -> None:
    """The unit's user is the one that sysusers makes, in the groups that may read the log and the journal."""
    found = settings()
    users = [line.split()[:3] for line in (UNIT.parent / "denylog.sysusers.conf").read_text().splitlines()]
    assert ["u", found["User"], "-"] in users
    assert ["m", found["User"], "adm"] in users
    assert found["SupplementaryGroups"] == "adm systemd-journal"


@pytest.mark.system
def test_sysusers(tmp_path: Path) -> None:
    """systemd-sysusers makes the user in an empty tree."""
    needs("systemd-sysusers")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    command = ["systemd-sysusers", f"--root={tmp_path}", str(UNIT.parent / "denylog.sysusers.conf")]
    folder = tmp_path / "etc"
    folder.mkdir()
    (tmp_path / str(UNIT.parent)[1:]).mkdir(parents=True)
    shutil.copy(UNIT.parent / "denylog.sysusers.conf", tmp_path / str(UNIT.parent)[1:])
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "denylog:" in (folder / "passwd").read_text()
    assert "adm:x:" in (folder / "group").read_text()


@pytest.mark.system
def test_rsyslog_example() -> None:
    """rsyslog accepts the example."""
    needs("rsyslogd")
    command = ["rsyslogd", "-N1", "-f", str(DEPLOY / "rsyslog" / "30-denylog.conf")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr.lower()


@pytest.mark.system
def test_logrotate_example(tmp_path: Path) -> None:
    """logrotate takes the example as it is, and rotates by renaming the file that rsyslog's example writes."""
    needs("logrotate")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    log = tmp_path / "denied.log"
    text = (DEPLOY / "logrotate" / "denylog").read_text()
    path = "/var/log/denylog/denied.log"
    assert f'file="{path}"' in (DEPLOY / "rsyslog" / "30-denylog.conf").read_text()
    configuration = tmp_path / "denylog"
    configuration.write_text(text.replace(path, str(log)).replace("/usr/lib/rsyslog/rsyslog-rotate", "/bin/true"))
    configuration.chmod(0o644)
    log.write_text("a line\n")
    inode = log.stat().st_ino
    tmp_path.chmod(0o755)
    command = ["logrotate", "--force", "--state", str(tmp_path / "state"), str(configuration)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "denied.log.1").stat().st_ino == inode
    assert (log.stat().st_size, log.stat().st_mode & 0o777) == (0, 0o640)
