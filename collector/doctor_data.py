"""The doctor's checks of what is read and written: file, lines, prefix, clock, store, targets.

Rule: pure; "fail" means that packets are missing or will be, "warn" that somebody should know.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import datetime, timedelta

from collector.facts import Facts, Log, Sample, StoreFacts, Unknown
from collector.findings import Finding, Status, ours, prefixes, span, word
from parser.outcome import NOT_FROM_THE_KERNEL

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
DRIFT_WARN, DRIFT_FAIL = 2 * MINUTE, HOUR
"""Daemons write within seconds; an hour is a wrong zone, or a wrong clock."""
STALE_FAIL = 20 * HOUR
"""Something is logged on every node within a day, if only by cron."""
COMMITTING = 2 * MINUTE
"""A collector commits a second after it read; on a silent log it has nothing to commit."""
ROOM_FAIL, ROOM_WARN = 100_000_000, 1_000_000_000
"""Bytes: less than the first is gone within minutes of a flood."""


def check_file(facts: Facts) -> Iterator[Finding]:
    """Is there a file, and can it be read?"""
    if facts.kmsg:
        yield _kmsg(facts.kernel.printed)
    elif not facts.logs and facts.journal is None:
        yield Finding(
            "file", "fail", "no log is named, and none of the usual ones is there", "denylog doctor FILE, or --journal"
        )
    for log in facts.logs:
        if log.denied:
            group = f"usermod -aG {log.group} USER, and log in again; in a pod supplementalGroups" if log.group else ""
            yield Finding(
                "file",
                "fail",
                f"{log.path} may not be read by {facts.user}: it is {log.owner or 'closed'}",
                group or f"ls -ld {shlex.quote(log.path)}; open the folder to {facts.user}",
            )
        elif log.error:
            yield Finding("file", "fail", f"{log.path}: {log.error}", "ls -l /var/log; denylog doctor FILE")
        elif not log.size:
            yield Finding("file", "warn", f"{log.path} is empty", "logger -p kern.notice test; tail " + log.path)
        else:
            yield Finding("file", "ok", f"{log.path} can be read ({log.size:,} bytes, {log.owner})")


def _kmsg(printed: int | Unknown) -> Finding:
    if isinstance(printed, Unknown):
        return Finding("file", "fail", printed.why, "run it as root or with CAP_SYSLOG (systemd: AmbientCapabilities=)")
    return Finding("file", "ok", "/dev/kmsg can be read")


def check_format(facts: Facts) -> Iterator[Finding]:
    """Are the lines of a form that is known?"""
    for log, sample in _samples(facts):
        rejects = sum(sample.rejects.values())
        forged = sample.rejects.get(NOT_FROM_THE_KERNEL, 0)
        if sample.looked and not sample.framed:
            yield Finding(
                "format",
                "fail",
                f"{log.path}: none of its last {sample.looked} lines begins as a log line",
                f"tail -3 {log.path} | denylog parse",
            )
        elif forged and not sample.packets:
            yield Finding(
                "format",
                "fail",
                f"{log.path}: {forged} lines have our prefix, but not the kernel's tag",
                "keep the tag `kernel:` in the daemon's template; if nobody else can write there: --any-tag",
            )
        elif rejects > sample.packets:
            worst = max(sample.rejects, key=lambda reason: sample.rejects[reason])
            yield Finding(
                "format",
                "warn",
                f"{log.path}: {rejects} of its last lines are rejected, most as {worst!r}",
                f"grep IN= {log.path} | denylog parse | grep reject | head",
            )
        else:
            yield Finding(
                "format", "ok", f"{log.path}: {sample.lines:,} lines at its end, {sample.packets:,} denied packets"
            )


def check_prefix(facts: Facts) -> Iterator[Finding]:
    """Is it our prefix that the lines carry?"""
    matched = sum(rule.packets or 0 for rule in ours(facts))
    for log, sample in _samples(facts):
        foreign = max(sample.foreign, key=lambda prefix: sample.foreign[prefix], default="")
        if sample.packets:
            yield Finding("prefix", "ok", f"{log.path}: lines with {prefixes(facts)}")
        elif sample.foreign:
            count = sample.foreign[foreign]
            yield Finding(
                "prefix",
                "fail",
                f"{log.path}: {count} netfilter lines have the prefix {foreign!r}, none has {prefixes(facts)}",
                f"denylog collect --log-prefix {word(foreign)} {shlex.quote(log.path)}",
            )
        elif matched and not isinstance(facts.kernel.printed, Unknown) and facts.kernel.printed:
            yield Finding(
                "prefix",
                "fail",
                f"the kernel printed {facts.kernel.printed} lines, {log.path} has none",
                "see the syslog check; dmesg | grep IN=",
            )
        else:
            yield Finding("prefix", "skip", f"{log.path}: no netfilter line at its end, nothing to compare")


def check_clock(facts: Facts) -> Iterator[Finding]:
    """Do the time stamps, the file's time, the store and this machine's clock agree?"""
    problems = [problem for log in facts.logs for problem in _drifts(log, facts.now)]
    commit = facts.store.last_commit
    if commit is not None and commit - facts.now > MINUTE:
        problems.append(
            Finding(
                "clock",
                "fail",
                f"the store's last commit is {span(commit - facts.now)} ahead: the clock was set back",
                "timedatectl status",
            )
        )
    yield from problems
    if facts.synchronised is False:
        yield Finding("clock", "warn", "the kernel's clock is not synchronised", "timedatectl set-ntp true")
    elif not problems:
        unknown = isinstance(facts.synchronised, Unknown)
        yield Finding("clock", "ok", "time stamps, files and clock agree" + ("" if unknown else "; it is synchronised"))


def _drifts(log: Log, now: datetime) -> Iterator[Finding]:
    if log.written is None:
        return
    newest = log.sample.newest if log.sample else None
    if log.written - now > MINUTE:
        yield Finding(
            "clock",
            "fail",
            f"{log.path} was written {span(log.written - now)} in the future",
            "date; timedatectl status",
        )
    elif now - log.written > STALE_FAIL:
        yield Finding(
            "clock",
            "fail",
            f"{log.path} was not written to for {span(now - log.written)}: its daemon is silent, or a clock is off",
            "date; timedatectl status; systemctl status rsyslog",
        )
    if newest is not None and abs(newest - log.written) > DRIFT_WARN:
        yield _drift(log, newest - log.written, zoned=log.sample is not None and log.sample.zoned)


def _drift(log: Log, off: timedelta, *, zoned: bool) -> Finding:
    status: Status = "fail" if abs(off) >= DRIFT_FAIL else "warn"
    side = "ahead of" if off > timedelta() else "behind"
    quarters = off.total_seconds() / 900
    by_zone = not zoned and abs(off) <= timedelta(hours=14, minutes=5) and abs(quarters - round(quarters)) < 0.2
    fix = (
        "denylog collect --zone ZONE (that of the daemon)" if by_zone else "date; timedatectl status; chronyc tracking"
    )
    return Finding(
        "clock", status, f"the newest line of {log.path} is {span(abs(off))} {side} the time of the file", fix
    )


def check_store(facts: Facts) -> Iterator[Finding]:
    """Can a collector write?"""
    store = facts.store
    stop = f"kill {store.holder_pid}" if store.holder_pid else f"fuser -v {shlex.quote(store.address + '/writer.lock')}"
    if store.free_bytes < ROOM_FAIL or (store.free_inodes is not None and store.free_inodes < 100):
        yield Finding("store", "fail", f"{store.address}: {_room(store)} free", "free some, or keep less: --keep 7d")
    elif store.error:
        yield Finding(
            "store",
            "fail",
            f"{store.address}: {store.error}",
            f"ls -ld {shlex.quote(store.address)}; df -h; name another with --store",
        )
    elif store.holder and not (store.following and _commits(facts)):
        yield Finding(
            "store", "fail", f"{store.address} is locked by {store.holder}", f"{stop}, or name another --store"
        )
    elif store.free_bytes < ROOM_WARN:
        yield Finding("store", "warn", f"{store.address}: {_room(store)} free", "keep less: denylog collect --keep 7d")
    else:
        who = f"is written to by {store.holder}" if store.holder else "can be written to"
        new = "" if store.exists else "; it will be created"
        yield Finding("store", "ok", f"{store.address} {who}{new}; {_room(store)} free")


def _commits(facts: Facts) -> bool:
    """True where a collector that holds the store has committed since the log was last written to."""
    commit = facts.store.last_commit
    written = max((log.written for log in facts.logs if log.written is not None), default=None)
    return commit is not None and (facts.now - commit < COMMITTING or written is None or commit >= written)


def _room(store: StoreFacts) -> str:
    return f"{store.free_bytes / 1e9:.1f} GB"


def check_targets(facts: Facts) -> Iterator[Finding]:
    """Do the servers to forward to answer?"""
    for target in facts.targets:
        if target.wrong:
            yield Finding("target", "fail", target.error, "denylog forward --help names what a URL may hold")
        elif target.error:
            host = target.name.partition("://")[2]
            name, _, port = host.rpartition(":")
            yield Finding(
                "target",
                "fail",
                f"{target.name} does not answer: {target.error}",
                f"nc -vz {name or host} {port}; is it up, is a firewall or a NetworkPolicy between?",
            )
        else:
            what = "resolves; UDP gives no answer" if target.silent else "answers"
            yield Finding("target", "ok", f"{target.name} {what}")


def _samples(facts: Facts) -> Iterator[tuple[Log, Sample]]:
    yield from ((log, log.sample) for log in facts.logs if log.sample is not None and log.sample.lines)
