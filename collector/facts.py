"""What the doctor looks at: rules, kernel, syslog daemons, log files, clock, store and targets, as they are now.

What Felix is told is looked up before, in the store or the cluster.

Rule: looking changes nothing and needs no right: what may not be looked at is an `Unknown` that says why. No verdict
is made here; `collector.doctor` does that, from these facts alone.
"""

from __future__ import annotations

import ctypes
import os
import stat
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from collector.daemons import Daemon, Journald, daemons_of, journald
from collector.felix import Felix
from collector.forward.target import parse_target, redacted
from collector.forward.tls import make_context
from collector.forward.transports import open_transport
from collector.forward.wire import Broken
from collector.rules import Rules, read_rules
from collector.settings import CollectorError
from parser import Options
from parser.bulk import read
from parser.frame import frame
from parser.prefix import match

SAMPLE = 1024 * 1024
"""Bytes at the end of a log that are read: some thousand lines."""
_FRAMES = 200  # lines at the end whose frame is looked at
_PROC, _SYS = Path("/proc"), Path("/sys")
_LOG_ALL = "net/netfilter/nf_log_all_netns"
_OUTSIDE = (1, 2)
"""init and, in the machine's own pid namespace, kthreadd: they are never in a container's network."""
_STA_UNSYNC = 0x0040  # linux/timex.h
_INITIAL_PIDS = "pid:[4026531836]"  # include/linux/proc_ns.h, PROC_PID_INIT_INO


@dataclass(frozen=True, slots=True)
class Unknown:
    """Something that could not be looked at, and why."""

    why: str


@dataclass(frozen=True, slots=True)
class Kernel:
    """Whether lines come out of the kernel.

    `initial`: this is the machine's own network namespace. `log_all`: net.netfilter.nf_log_all_netns, None where it
    cannot be read from here. `loggers`: what may log packets of IPv4 and IPv6. `printed`: lines with our prefix in the
    kernel's buffer; `whole`: the buffer still holds everything since boot. `bpf`: programs of Calico's eBPF data plane.
    """

    initial: bool
    log_all: bool | None
    loggers: str
    printed: int | Unknown
    whole: bool
    bpf: tuple[str, ...] | Unknown
    container: str


@dataclass(frozen=True, slots=True)
class Sample:
    """The end of a log: its lines by what they are, and its newest time stamp.

    `framed`: of the last lines, those in a known frame. `foreign`: netfilter lines by a prefix that is not ours.
    `untagged`: lines with our prefix whose tag is not the kernel's.
    """

    lines: int
    packets: int
    rejects: Mapping[str, int]
    foreign: Mapping[str, int]
    framed: int
    looked: int
    newest: datetime | None
    zoned: bool


@dataclass(frozen=True, slots=True)
class Log:
    """A log file: `error` says why it cannot be read, "" where it can; `owner` is user:group and mode."""

    path: str
    error: str = ""
    denied: bool = False
    owner: str = ""
    group: str = ""
    size: int = 0
    written: datetime | None = None
    sample: Sample | None = None
    daemons: tuple[Daemon, ...] | Unknown = ()


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """A store: `error` as analytics says it; `holder` who writes to it; `following` that this is a collector."""

    address: str
    exists: bool = False
    error: str = ""
    holder: str = ""
    holder_pid: int = 0
    following: bool = False
    last_commit: datetime | None = None
    free_bytes: int = 0
    free_inodes: int | None = None


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """A server to forward to, by its name without secrets: why it does not answer, "" where it does.

    `wrong`: the URL, or a file that it names, will not do. `silent`: it cannot answer, UDP has no answers.
    """

    name: str
    error: str = ""
    wrong: bool = False
    silent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything; `synchronised` is what the kernel says of its clock, `kmsg` that its buffer is what is followed."""

    now: datetime
    user: str
    root: bool
    options: Options
    rules: Rules
    kernel: Kernel
    logs: tuple[Log, ...] = ()
    journal: Journald | None = None
    kmsg: bool = False
    felix: Felix | Unknown
    synchronised: bool | Unknown
    store: StoreFacts
    targets: tuple[TargetFacts, ...] = ()


USUAL_LOGS = ("/var/log/syslog", "/var/log/messages", "/var/log/kern.log")
"""Where Debian and Red Hat families keep what the kernel says."""


def gather(
    files: Sequence[str],
    store: StoreFacts,
    options: Options,
    targets: Sequence[str] = (),
    *,
    felix: Felix | Unknown,
    journal: bool = False,
    kmsg: bool = False,
) -> Facts:
    """Look at everything; without files, journal and kmsg, at the usual log of this machine."""
    if not files and not journal and not kmsg:
        files = [path for path in USUAL_LOGS if os.path.exists(path)][:1]
    return Facts(
        now=datetime.now(UTC),
        user=f"uid {os.geteuid()}",
        root=os.geteuid() == 0,
        options=options,
        rules=read_rules(),
        kernel=_kernel(options),
        logs=tuple(_log(path, options) for path in files),
        journal=journald() if journal else None,
        kmsg=kmsg,
        felix=felix,
        synchronised=_synchronised(),
        store=store,
        targets=tuple(map(_target, targets)),
    )


def _kernel(options: Options) -> Kernel:
    setting = _first_line(_PROC / "sys" / _LOG_ALL)
    printed, whole = _printed(options)
    return Kernel(
        initial=bool(setting),  # net/netfilter/nf_log.c registers it for the first namespace only
        log_all=setting == "1" if setting else _log_all_outside(),
        loggers=_read(_PROC / "net/netfilter/nf_log"),
        printed=printed,
        whole=whole,
        bpf=_bpf(),
        container=_container(),
    )


def _log_all_outside() -> bool | None:
    """The setting of the machine's own namespace, seen by a thread that enters it and ends; None without rights."""
    found: list[bool] = []

    def look() -> None:
        for process in _OUTSIDE:
            with suppress(OSError), open(f"/proc/{process}/ns/net", "rb") as namespace:
                if ctypes.CDLL(None).setns(namespace.fileno(), 0) == 0 and (
                    value := _first_line(_PROC / "sys" / _LOG_ALL)
                ):
                    found.append(value == "1")

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found[0] if found else None


def _printed(options: Options) -> tuple[int | Unknown, bool]:
    """How many records with our prefix the kernel's buffer holds, and whether it holds all since boot."""
    try:
        descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return Unknown(f"/dev/kmsg: {error.strerror}"), False
    count, first = 0, -1
    try:
        while True:
            try:
                head, _, text = os.read(descriptor, 8192).partition(b";")
            except BrokenPipeError:
                continue
            except OSError:
                break
            first = int(head.split(b",")[1]) if first < 0 else first
            before, found, _ = text.partition(b"IN=")
            count += bool(found) and match(before.decode("utf-8", "replace"), options) is not None
    finally:
        os.close(descriptor)
    return count, first == 0


def _bpf() -> tuple[str, ...] | Unknown:
    """What Calico's eBPF data plane pins (felix/bpf/bpfdefs)."""
    root = _SYS / "fs/bpf"
    try:
        names = [path.name for path in root.iterdir()]
    except PermissionError:
        return Unknown(f"{root}: needs root")
    except OSError:
        return ()
    folders = [root / "tc/globals", *([root / "calico"] if "calico" in names else [])]
    with suppress(OSError):
        return tuple(sorted(str(path) for folder in folders if folder.is_dir() for path in folder.glob("cali*")))
    return Unknown(f"{root}: cannot be read")


def _container() -> str:
    """What this runs in: kind, a pod, a container, or "" for a machine."""
    if _first_line(_SYS / "class/dmi/id/product_name") == "kind" or Path("/kind").is_dir():
        return "kind"
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "pod"
    return "container" if any(map(os.path.exists, ("/.dockerenv", "/run/.containerenv"))) else ""


def _synchronised() -> bool | Unknown:
    """adjtimex(2) tells without changing anything."""
    buffer = (ctypes.c_long * 64)()
    library = ctypes.CDLL(None, use_errno=True)
    if library.adjtimex(buffer) < 0:
        return Unknown(os.strerror(ctypes.get_errno()))
    # struct timex: modes, offset, freq, maxerror, esterror, status: each in a long's place on 64-bit Linux
    return not buffer[5] & _STA_UNSYNC


def _log(path: str, options: Options) -> Log:
    found = Log(path)
    try:
        facts = os.stat(path)
        owner, group = _owner(path, facts)
        found = replace(found, owner=owner, group=group)
        if not stat.S_ISREG(facts.st_mode):
            return replace(found, error="is no regular file", daemons=_daemons(path))
        with open(path, "rb") as file:
            file.seek(max(0, facts.st_size - SAMPLE))
            data = file.read(SAMPLE)
    except OSError as error:
        denied = isinstance(error, PermissionError)
        return replace(found, error=error.strerror or str(error), denied=denied, daemons=_daemons(path))
    if facts.st_size > SAMPLE:
        data = data.partition(b"\n")[2]
    written = datetime.fromtimestamp(facts.st_mtime, UTC)
    return replace(
        found, size=facts.st_size, written=written, sample=sample(data, options, written), daemons=_daemons(path)
    )


def _owner(path: str, facts: os.stat_result) -> tuple[str, str]:
    """user:group with the mode, and the group alone."""
    found = Path(path)
    names = []
    for kind, number in (("owner", facts.st_uid), ("group", facts.st_gid)):
        try:
            names.append(getattr(found, kind)())
        except (KeyError, OSError):
            names.append(str(number))
    return f"{names[0]}:{names[1]} {facts.st_mode & 0o7777:04o}", names[1]


def _daemons(path: str) -> tuple[Daemon, ...] | Unknown:
    if os.readlink("/proc/self/ns/pid") != _INITIAL_PIDS:
        return Unknown("the node's processes are not visible from this container")
    return daemons_of(path)


def sample(data: bytes, options: Options, written: datetime) -> Sample:
    """What the end of a log holds; `written` is when the file was, aware."""
    batch = read(data, options, anchor=written)
    strange = read(data, replace(options, any_prefix=True), anchor=written)
    foreign = Counter(str(prefix) for prefix in strange.packets["prefix"].to_list())
    foreign.subtract(str(prefix) for prefix in batch.packets["prefix"].to_list())
    last = data[: batch.consumed].splitlines()[-_FRAMES:]
    frames = [frame(line, options, anchor=written) for line in last]
    stamps = [(found.time, line) for found, line in zip(frames, last, strict=True) if found.time is not None]
    return Sample(
        lines=batch.lines,
        packets=batch.packets.height,
        rejects=Counter(found.reject.reason for found in batch.rejects),
        foreign=+foreign,
        framed=sum(
            found.time is not None or found.uptime_s is not None or found.trusted is not None for found in frames
        ),
        looked=len(frames),
        newest=stamps[-1][0] if stamps else None,
        zoned=bool(stamps) and stamps[-1][1][:4].isdigit(),
    )


def _target(url: str) -> TargetFacts:
    """Connect as the forwarder would, encryption and RELP's greeting included, and send nothing."""
    try:
        target = parse_target(url)
        open_transport(target, make_context(target), threading.Event()).close()
    except CollectorError as error:
        return TargetFacts(redacted(url).strip("'"), str(error), wrong=True)
    except Broken as error:
        return TargetFacts(target.name, str(error))
    return TargetFacts(target.name, silent=target.scheme == "udp")


def _first_line(path: Path) -> str:
    return _read(path).partition("\n")[0].strip()


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
