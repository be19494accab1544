"""Which daemon writes a log file, and does it hear the kernel? Told by what runs, not by what is installed.

Rule: a daemon belongs to a file when it has the file open for writing, or when its configuration names it. What is
read of a configuration is what decides: where the kernel's messages come in, and which of them go to the file.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_CONFIGURATIONS = {
    "rsyslogd": ("-f", "/etc/rsyslog.conf"),
    "syslog-ng": ("-f", "/etc/syslog-ng/syslog-ng.conf"),
}
_KERNEL_INPUTS = {
    "rsyslogd": re.compile(
        r"module\s*\(\s*load\s*=\s*\"(imklog|imkmsg|imjournal)[\".]|^\s*\$ModLoad\s+(imklog|imkmsg|imjournal)\b",
        re.IGNORECASE | re.MULTILINE,
    ),
    "syslog-ng": re.compile(r"\b(system|systemd-journal)\s*\(|[\"'](/proc/kmsg|/dev/kmsg)[\"']"),
}
_INCLUDES = re.compile(
    r"^\s*\$IncludeConfig\s+(\S+)|include\s*\(\s*file\s*=\s*\"([^\"]+)\"|^\s*@include\s+\"([^\"]+)\"", re.MULTILINE
)
_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)
_DEPTH = 4  # files that include files


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running syslog daemon.

    `kernel`: by which input it hears the kernel, "" for none, None where its configuration cannot be read. `passes`:
    which of kern.notice (iptables) and kern.info (nftables) its rule for the file lets through, None where there is no
    rule in the classic form.
    """

    name: str
    pid: int
    configuration: str
    kernel: str | None
    passes: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Journald:
    """journald: whether it runs, and the settings that keep the kernel's messages out of it."""

    running: bool
    settings: dict[str, str]


def daemons_of(path: str) -> tuple[Daemon, ...]:
    """The running daemons that write to the file, or that are configured to."""
    return tuple(_daemons(os.path.abspath(path)))


def _daemons(path: str) -> Iterator[Daemon]:
    for pid in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        name = _text(Path(f"/proc/{pid}/comm")).strip()
        if name not in _CONFIGURATIONS:
            continue
        file = _configuration(pid, name)
        text = _with_includes(Path(f"/proc/{pid}/root"), file)
        named = text is not None and path in text
        if named or _writes(pid, path):
            yield Daemon(name, pid, file, _kernel_input(name, text), _passes(text, path) if text else None)


def _configuration(pid: int, name: str) -> str:
    """The file of `-f FILE`, or the usual one."""
    flag, usual = _CONFIGURATIONS[name]
    words = _text(Path(f"/proc/{pid}/cmdline")).split("\0")
    for at, word in enumerate(words):
        if word == flag and at + 1 < len(words):
            return os.path.join(_folder(pid), words[at + 1])
        if word.startswith(flag) and len(word) > len(flag):
            return os.path.join(_folder(pid), word[len(flag) :])
    return usual


def _folder(pid: int) -> str:
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/cwd")
    return "/"


def _with_includes(root: Path, file: str, depth: int = 0) -> str | None:
    """The configuration with all that it includes, without comments; None where it cannot be read.

    `root` is where the daemon sees its files; where one may not look there, they are taken to be here.
    """
    base = str(root) if os.access(root, os.X_OK) else ""
    try:
        text = Path(f"{base}{file}").read_text(errors="replace")
    except OSError:
        return None
    text = _COMMENT.sub("", text)
    if depth < _DEPTH:
        for found in _INCLUDES.finditer(text):
            pattern = next(group for group in found.groups() if group)
            for path in sorted(glob.glob(f"{base}{pattern}")):
                text += "\n" + (_with_includes(root, path.removeprefix(base), depth + 1) or "")
    return text


def _kernel_input(name: str, text: str | None) -> str | None:
    if text is None:
        return None
    found = _KERNEL_INPUTS[name].search(text)
    return next(group for group in found.groups() if group) if found else ""


def _writes(pid: int, path: str) -> bool:
    """True where the process has the file open; processes of others can only be looked at by root."""
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if os.readlink(entry.path) == os.path.realpath(path):
                    return True
    return False


_RULE = re.compile(r"^\s*(?P<selector>[\w*]+(?:,[\w*]+)*\.[\w*=!]+(?:;[\w*,.=!]+)*)\s+-?(?P<file>/\S+)", re.MULTILINE)
_PRIORITIES = ("debug", "info", "notice", "warning", "err", "crit", "alert", "emerg")
_ALIASES = {"warn": "warning", "error": "err", "panic": "emerg"}
LEVELS = ("notice", "info")
"""What Calico's rules log with on iptables and on nftables (felix/iptables/actions.go, felix/nftables/actions.go)."""


def _passes(text: str, path: str) -> frozenset[str] | None:
    """The levels of kernel messages that a classic rule for the file takes."""
    found = [rule["selector"] for rule in _RULE.finditer(text) if rule["file"] == path]
    if not found:
        return None
    return frozenset(level for level in LEVELS if any(takes(selector, level) for selector in found))


def takes(selector: str, level: str) -> bool:
    """True where a selector such as `*.*;auth.none` takes kernel messages of a level; its last fitting part decides."""
    taken = False
    for part in selector.split(";"):
        facilities, _, priority = part.rpartition(".")
        if "*" in facilities.split(",") or "kern" in facilities.split(","):
            taken = _takes(priority, level, before=taken)
    return taken


def _takes(priority: str, level: str, *, before: bool) -> bool:
    negated, name = priority.startswith("!"), priority.lstrip("!=")
    if name == "none":
        return False
    if name == "*":
        return not negated
    named = _ALIASES.get(name, name)
    if named not in _PRIORITIES:
        return before
    hit = named == level if "=" in priority[:2] else _PRIORITIES.index(named) <= _PRIORITIES.index(level)
    return (before and not hit) if negated else (hit or before)


def journald() -> Journald:
    """journald's settings, those of its drop-in files included."""
    names = ["/etc/systemd/journald.conf", "/usr/lib/systemd/journald.conf"]
    files = [name for name in names if os.path.exists(name)][:1]
    for folder in ("/usr/lib", "/run", "/etc"):
        files += sorted(glob.glob(f"{folder}/systemd/journald.conf.d/*.conf"))
    pairs = re.findall(r"^\s*(\w+)\s*=\s*(\S*)", "\n".join(_text(Path(file)) for file in files), re.MULTILINE)
    return Journald(os.path.exists("/run/systemd/journal/socket"), dict(pairs))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
