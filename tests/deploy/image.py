"""What the image would contain, started the way a container engine starts it, without one.

An environment is made from the wheel and the pinned packages, as deploy/Dockerfile makes it, and run by bubblewrap:
read-only root, no network, no HOME, nothing of the host but Python's own files, a user that is not root and has no
capability, the program as process 1. What stands in for the base image is the Python of this machine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

USER = 10001  # as in deploy/Dockerfile and the manifests
ADM = 4
_RUN = ("setpriv", f"--reuid={USER}", f"--regid={USER}", f"--groups={ADM}")
_CONFINED = ("--inh-caps=-all", "--bounding-set=-all", "--no-new-privs")


def missing() -> str:
    """Why nothing can be started here, or an empty text."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [program for program in ("bwrap", "setpriv", "nsenter") if not shutil.which(program)]
    return f"needs {', '.join(absent)}" if absent else ""


def make(folder: Path, repository: Path, packages: Iterable[str]) -> Path:
    """An environment with the wheel of the repository and these installed packages; the path of `denylog`."""
    environment, wheels = folder / "denylog", folder / "wheels"
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(sys.executable, "-m", "venv", "--without-pip", str(environment))
    run(*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(wheels), str(repository))
    (wheel,) = wheels.iterdir()
    run(*pip, "--python", str(environment / "bin/python"), "install", "--no-deps", "--no-index", str(wheel))
    (site,) = environment.glob("lib/python*/site-packages")
    for package in packages:
        _take(package, site)
    return environment / "bin" / "denylog"


def run(*command: str) -> None:
    """A command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr


def _take(package: str, site: Path) -> None:
    """The files of an installed package, as hard links where that is possible."""
    for file in distribution(package).files or ():
        source = Path(str(file.locate()))
        if ".." in file.parts or file.suffix == ".pyc" or not source.is_file():
            continue
        target = site / file
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)


@dataclass(frozen=True)
class Container:
    """An environment, the node's log and its state, and how they are put together."""

    program: Path
    log: Path
    state: Path

    def command(
        self, *arguments: str, state_read_only: bool = False, scratch: bool = False, told: int | None = None
    ) -> list[str]:
        """The command line that runs denylog in the box. `scratch`: with a writable /tmp, as the manifests give;
        `told`: the descriptor on which bubblewrap tells the program's number."""
        python = Path(sys.base_prefix)
        shown = [Path("/usr"), *([] if python.is_relative_to("/usr") else [python]), self.program.parents[1]]
        links = [part for name in ("lib", "lib64", "bin") for part in ("--symlink", f"usr/{name}", f"/{name}")]
        return [
            "bwrap", "--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent",
            "--as-pid-1", "--new-session", "--clearenv", "--proc", "/proc", "--dev", "/dev", *links,
            *_folders(["/var/log", "/var/lib/denylog", *map(str, shown)]),
            *(["--perms", "1777", "--tmpfs", "/tmp"] if scratch else []),
            *(part for path in shown for part in (*_folders([str(path)]), "--ro-bind", str(path), str(path))),
            "--ro-bind", str(self.log), "/var/log",
            "--ro-bind" if state_read_only else "--bind", str(self.state), "/var/lib/denylog",
            "--remount-ro", "/", "--setenv", "DENYLOG_STORE", "/var/lib/denylog", "--setenv", "NODE_NAME", "node-7",
            *(["--info-fd", str(told)] if told else []), "--", *_RUN, *_CONFINED, str(self.program), *arguments,
        ]  # fmt: skip

    def ask(self, *arguments: str) -> str:
        """What a command that ends prints; it has to end well."""
        command = self.command(*arguments, state_read_only=True, scratch=True)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def started(self, *arguments: str, scratch: bool = False, state_read_only: bool = False) -> Iterator[Running]:
        """A command that goes on until it is told to stop."""
        reading, writing = os.pipe()
        command = self.command(*arguments, scratch=scratch, state_read_only=state_read_only, told=writing)
        try:
            process = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.PIPE)
        finally:
            os.close(writing)
        try:
            with os.fdopen(reading) as information:
                running = Running(process, json.loads(information.read())["child-pid"])
            try:
                yield running
            finally:
                running.end()
        finally:
            process.kill()
            process.wait()
            if process.stderr:
                process.stderr.close()


@dataclass(frozen=True)
class Running:
    """bubblewrap, and the program in the box by its number out here."""

    process: subprocess.Popen[bytes]
    pid: int

    def end(self) -> None:
        """Kill the program where it still runs: it outlives bubblewrap, since changing its user takes the signal back
        that --die-with-parent asks for (prctl(2), PR_SET_PDEATHSIG)."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def stop(self, number: int) -> tuple[int, str]:
        """Send the program a signal; the exit code and what was said."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
        _, said = self.process.communicate(timeout=30)
        return self.process.returncode, said.decode()


def _folders(paths: Iterable[str]) -> list[str]:
    """bubblewrap makes missing folders for root alone."""
    parents = {str(parent) for path in paths for parent in Path(path).parents if str(parent) != "/"}
    return [part for folder in sorted(parents) for part in ("--perms", "0755", "--dir", folder)]
