"""What the doctor says: of facts made up for each check, and of eight set-ups that are really broken."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from analytics import Commit, Writer
from collector.daemons import Daemon, Journald, takes
from collector.doctor import examine
from collector.doctor_commands import show
from collector.facts import Facts, Kernel, Log, StoreFacts, TargetFacts, Unknown, sample
from collector.felix import Felix, felix_of
from collector.findings import Finding
from collector.rules import LogRule, Rules, iptables_rules, nft_rules
from collector.storefacts import store_facts
from parser import Options
from tests.collector.live import REPOSITORY, lines
from tests.system.kernel import LOG_ALL, Network, missing, network, run

DENYLOG = (sys.executable, str(REPOSITORY / "cli.py"))
NOW = datetime(2026, 11, 22, 16, 0, tzinfo=UTC)
SAMPLE = lines([0, 1, 2]).replace("15:00:0", "15:59:5").encode()


def healthy() -> Facts:
    """A node on which all is in order."""
    log = Log(
        "/var/log/syslog", owner="root:adm 0640", group="adm", size=1000, written=NOW,
        sample=sample(SAMPLE, Options(), NOW),
        daemons=(Daemon("rsyslogd", 7, "/etc/rsyslog.conf", "imklog", frozenset({"notice", "info"})),),
    )  # fmt: skip
    kernel = Kernel(
        initial=True, log_all=False, loggers="2 nf_log_ipv4 (nf_log_ipv4)", printed=5, whole=True, bpf=(), container=""
    )
    rule = LogRule("iptables-nft", "cali-pi-abc", "calico-packet: ", 5)
    return Facts(
        now=NOW, user="uid 0", root=True, options=Options(), rules=Rules((rule,), True, ("iptables-nft-save",), ()),
        kernel=kernel, logs=(log,), synchronised=True, felix=Felix("as the store has it", ("default",)),
        store=StoreFacts("/store", exists=True, last_commit=NOW, free_bytes=10**12, free_inodes=10**6),
        targets=(TargetFacts("tls://siem:6514"),),
    )  # fmt: skip


def with_log(**changes: object) -> Facts:
    """The healthy node with another log."""
    facts = healthy()
    return replace(facts, logs=(replace(facts.logs[0], **changes),))  # type: ignore[arg-type]


def with_kernel(**changes: object) -> Facts:
    """The healthy node with another kernel."""
    return replace(healthy(), kernel=replace(healthy().kernel, **changes))  # type: ignore[arg-type]


def with_store(**changes: object) -> Facts:
    """The healthy node with another store."""
    return replace(healthy(), store=replace(healthy().store, **changes))  # type: ignore[arg-type]


def with_rules(*rules: LogRule, calico: bool = True, trouble: tuple[str, ...] = ()) -> Facts:
    """The healthy node with other rules."""
    return replace(healthy(), rules=Rules(rules, calico, ("nft",), trouble))


def daemon(**changes: object) -> Facts:
    """The healthy node with another syslog daemon."""
    return with_log(daemons=(replace(healthy().logs[0].daemons[0], **changes),))  # type: ignore[index, arg-type]


def text(line: bytes) -> dict[str, object]:
    """A log that ends in these lines."""
    return {"sample": sample(line, Options(), NOW)}


def with_felix(prefix: tuple[str, ...] = Options().prefixes, rules: bool = True, **spec: object) -> Facts:
    """The healthy node with these settings of Felix; `prefix` is what denylog looks for."""
    facts = healthy() if rules else with_rules()
    felix = Felix("as the store has it", ("default", "node.n1"), spec)
    return replace(facts, felix=felix, options=replace(facts.options, prefixes=prefix))


DEAF = LogRule("nft", "cali-po-x", "deny: ", 3)
QUIET = LogRule("nft", "cali-po-x", "calico-packet: ", 0)
HOURS = timedelta(hours=1)
CASES: dict[str, tuple[Facts, str, str, str, str]] = {
    "no Log policy": (with_rules(), "log-rule", "fail", "no Log policy is in force", "denylog policies generate"),
    "no Calico": (with_rules(calico=False), "log-rule", "fail", "no chain of Calico's", "hostNetwork"),
    "rules unreadable": (with_rules(trouble=("nft: no",)), "log-rule", "skip", "nft: no", "sudo"),
    "another prefix in the rules": (with_rules(DEAF), "log-rule", "fail", "'deny: '", "--log-prefix deny"),
    "Kind": (with_kernel(initial=False), "kernel-log", "fail", "nf_log_all_netns is 0", "nf_log_all_netns=1"),
    "Kind, unseen": (with_kernel(initial=False, log_all=None), "kernel-log", "warn", "cannot be seen", "sysctl -w"),
    "Kind, set": (with_kernel(initial=False, log_all=True), "kernel-log", "ok", "may log", ""),
    "no logger": (with_kernel(loggers="2 NONE ()"), "kernel-log", "fail", "no logger", "modprobe nf_log_syslog"),
    "nothing printed": (with_kernel(printed=0), "kernel-log", "fail", "printed nothing", "dmesg"),
    "kmsg closed": (with_kernel(printed=Unknown("closed")), "kernel-log", "skip", "closed", "sudo"),
    "eBPF": (replace(with_rules(), kernel=replace(healthy().kernel, bpf=("/sys/fs/bpf/tc/globals/cali_v4_ct",))),
             "data-plane", "fail", "trace pipe", "denylog ingest"),
    "Felix: another prefix": (with_felix(logPrefix="no"), "felix", "fail", "logPrefix is 'no'", "--log-prefix no"),
    "Felix: a format, a word": (with_felix(logPrefix="calico-packet %k %p"), "felix", "warn", "reads no policy",
                                "--log-prefix 'calico-packet %k %p'"),
    "Felix: a format": (with_felix(("calico-packet %k %p",), logPrefix="calico-packet %k %p"), "felix", "ok",
                        "no rate limit", ""),
    "Felix: no prefix": (with_felix(logPrefix=""), "felix", "ok", "prefix 'calico-packet'", ""),
    "Felix: rate": (with_felix(logActionRateLimit="10/minute"), "felix", "warn", "(burst 5): beyond it",
                    "denylog findings --rate-limit 10/minute"),
    "Felix: eBPF": (with_felix(bpfEnabled=True, rules=False), "felix", "fail", "bpfEnabled", "trace_pipe"),
    "Felix: eBPF to come": (with_felix(bpfEnabled=True), "felix", "warn", "bpfEnabled", "trace_pipe"),
    "Felix: its own words": (with_felix(logSeveritySys="Warning"), "felix", "ok",
                             "logSeveritySys=Warning is about Felix' own messages", ""),
    "Felix: nftables": (with_felix(nftablesMode="Enabled"), "felix", "ok", "kern.info (nftables)", ""),
    "Felix: legacy": (with_felix(iptablesBackend="Legacy", rules=False), "felix", "warn", "iptablesBackend is Legacy",
                      "iptables-legacy-save"),
    "Felix: interfaces": (with_felix(interfacePrefix="veth,tap"), "felix", "warn", "begin with veth, tap",
                          "--interface-prefix veth"),
    "Felix: unknown": (replace(healthy(), felix=Unknown("no store")), "felix", "skip", "no store", "inventory import"),
    "nftables, unseen rules": (
        replace(daemon(passes=frozenset({"notice"})), rules=with_rules().rules,
                felix=Felix("as the store has it", ("default",), {"nftablesMode": "Enabled"})),
        "syslog", "fail", "leaves out kern.info", "kern.*"),
    "Kind node": (with_kernel(container="kind"), "container", "warn", "Kind", "sysctl"),
    "pod network": (with_kernel(container="pod", initial=False), "container", "warn", "of its own", "hostNetwork"),
    "deaf rsyslog": (daemon(kernel=""), "syslog", "fail", "does not read the kernel's messages", "imklog"),
    "deaf syslog-ng": (daemon(name="syslog-ng", kernel=""), "syslog", "fail", "does not read the kernel's", "system()"),
    "rule leaves it out": (daemon(passes=frozenset()), "syslog", "fail", "leaves out kern.notice", "kern.*"),
    "nftables logs lower": (replace(daemon(passes=frozenset({"notice"})), rules=with_rules(QUIET).rules),
                            "syslog", "fail", "leaves out kern.info", "kern.*"),
    "nobody writes": (with_log(daemons=(), written=NOW - HOURS), "syslog", "fail", "no syslog daemon", "systemctl"),
    "not root": (replace(with_log(daemons=(), written=NOW - HOURS), root=False), "syslog", "skip", "by root", "sudo"),
    "journald keeps nothing": (replace(healthy(), journal=Journald(True, {"Storage": "none"})), "syslog", "fail",
                               "keeps nothing", "journald.conf"),
    "journald drops notice": (replace(healthy(), journal=Journald(True, {"MaxLevelStore": "warning"})), "syslog",
                              "fail", "drops kern.notice", "MaxLevelStore"),
    "journald away": (replace(healthy(), journal=Journald(False, {})), "syslog", "fail", "does not run", "systemctl"),
    "no log": (replace(healthy(), logs=()), "file", "fail", "no log is named", "denylog doctor FILE"),
    "closed log": (with_log(error="Permission denied", denied=True), "file", "fail", "root:adm 0640",
                   "usermod -aG adm"),
    "kmsg closed to us": (replace(with_kernel(printed=Unknown("/dev/kmsg: no")), logs=(), kmsg=True), "file", "fail",
                          "/dev/kmsg: no", "CAP_SYSLOG"),
    "kmsg": (replace(healthy(), logs=(), kmsg=True), "file", "ok", "/dev/kmsg can be read", ""),
    "empty log": (with_log(size=0, sample=None), "file", "warn", "is empty", "logger"),
    "no log lines": (with_log(**text(b"hello\nworld\n")), "format", "fail", "begins as a log line", "denylog parse"),
    "forged": (with_log(**text(SAMPLE.replace(b"kernel:", b"me:"))), "format", "fail", "not the kernel's tag",
               "--any-tag"),
    "another prefix": (with_log(**text(SAMPLE.replace(b"calico-packet", b"k8s-drop"))), "prefix", "fail", "'k8s-drop'",
                       "--log-prefix k8s-drop /var/log/syslog"),
    "lines do not arrive": (with_log(**text(b"2026-11-22T15:59:50+00:00 n cron: x\n")), "prefix", "fail", "has none",
                            "syslog check"),
    "future file": (with_log(written=NOW + 24 * HOURS), "clock", "fail", "1.0 days in the future", "timedatectl"),
    "silent file": (with_log(written=NOW - 24 * HOURS), "clock", "fail", "not written to for 1.0 days", "systemctl"),
    "stamps ahead": (with_log(**text(SAMPLE.replace(b"11-22", b"11-23"))), "clock", "fail", "1.0 days ahead",
                     "timedatectl"),
    "another zone": (with_log(**text(b"Nov 22 13:59:58 n kernel: x\n")), "clock", "fail", "2.0 h behind", "--zone"),
    "slow clock": (with_log(**text(b"2026-11-22T15:50:00+00:00 n cron: x\n")), "clock", "warn", "10.0 min behind",
                   "date"),
    "clock set back": (with_store(last_commit=NOW + 5 * HOURS), "clock", "fail", "5.0 h ahead", "timedatectl"),
    "free-running clock": (replace(healthy(), synchronised=False), "clock", "warn", "not synchronised", "set-ntp"),
    "locked": (with_store(holder="process 9 on n (denylog ingest, since x)", holder_pid=9), "store", "fail",
               "process 9", "kill 9"),
    "collector at work": (with_store(holder="process 9 on n (denylog collect x)", following=True), "store", "ok",
                          "is written to by process 9", ""),
    "collector that hangs": (with_store(holder="process 9 (denylog collect x)", following=True, holder_pid=9,
                                        last_commit=NOW - HOURS), "store", "fail", "locked by process 9", "kill 9"),
    "closed store": (with_store(error="/store cannot be written to"), "store", "fail", "cannot be written", "ls -ld"),
    "full": (with_store(free_bytes=10**7), "store", "fail", "0.0 GB free", "--keep"),
    "no inodes": (with_store(free_inodes=3), "store", "fail", "free", "--keep"),
    "nearly full": (with_store(free_bytes=5 * 10**8), "store", "warn", "0.5 GB free", "--keep"),
    "target away": (replace(healthy(), targets=(TargetFacts("tcp://siem:514", "Connection refused"),)), "target",
                    "fail", "Connection refused", "nc -vz siem 514"),
}  # fmt: skip


def test_felix_is_known_from_the_inventory(tmp_path: Path) -> None:
    """What was imported of FelixConfiguration is judged, with what is set for this node; without it that is said."""
    store, dump, log = tmp_path / "store", tmp_path / "felix.json", tmp_path / "log"
    log.write_text(lines([0]))
    words = ("doctor", str(log), "--store", str(store), "--node", "n1", "-o", "json")
    assert felix_finding(*words)["found"].endswith("there is no store")
    objects = [
        {"apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration", "metadata": {"name": name}, "spec": spec}
        for name, spec in (("default", {"logPrefix": "denied"}), ("node.n1", {"logActionRateLimit": "5/second"}))
    ]
    dump.write_text(json.dumps({"kind": "List", "apiVersion": "v1", "items": objects}))
    subprocess.run([*DENYLOG, "inventory", "import", "--store", str(store), str(dump)], check=True, capture_output=True)
    found = felix_finding(*words)
    assert (found["status"], found["fix"]) == ("fail", "denylog collect --log-prefix denied …")
    assert "default and node.n1 (as the store has it): logPrefix is 'denied'" in found["found"]
    assert "5/second" not in felix_finding(*words[:4], "--node", "n2", "-o", "json", last=True)["found"]
    assert "5/second" in felix_finding(*words, last=True)["found"]


def test_felix_is_known_from_the_cluster(tmp_path: Path) -> None:
    """With --cluster the cluster is asked, and only read; one that does not answer is a finding, not an error."""
    pytest.importorskip("lightkube")
    from tests.policies.apiserver import ApiServer

    words = ("doctor", "--kmsg", "--store", str(tmp_path / "store"), "--node", "n1", "-o", "json", "--cluster")
    with ApiServer() as api:
        for name, spec in (("default", {"bpfEnabled": True}), ("node.n1", {"logActionRateLimit": "5/second"})):
            felix = {"apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration", "metadata": {"name": name}}
            api.put({**felix, "spec": spec})
        config = str(api.kubeconfig(tmp_path / "config", "reader"))
        found = felix_finding(*words, "--kubeconfig", config)["found"]
        assert found.startswith("FelixConfiguration default and node.n1 (of the cluster): bpfEnabled is set")
        assert {request.split()[0] for request in api.requests} == {"GET"}
    assert felix_finding(*words, "--kubeconfig", config)["status"] == "skip"


def felix_finding(*words: str, last: bool = False) -> dict[str, str]:
    """The first (or last) finding of the check `felix`."""
    found = subprocess.run([*DENYLOG, *words], capture_output=True, text=True, check=False)
    assert found.returncode in (0, 1), found.stderr
    return [each for each in json.loads(found.stdout) if each["check"] == "felix"][-1 if last else 0]


def test_settings_of_a_node_go_before_those_of_all() -> None:
    """`node.NAME` wins over `default`, field by field; what is set for another node does not count."""
    objects = [
        {"metadata": {"name": "default"}, "spec": {"logPrefix": "all", "bpfEnabled": True}},
        {"metadata": {"name": "node.n1"}, "spec": {"bpfEnabled": False}},
        {"metadata": {"name": "node.n2"}, "spec": {"logPrefix": "other"}},
    ]
    found = felix_of(objects, "n1", "here")
    assert found is not None
    assert (found.names, found.prefix, found.bpf) == (("default", "node.n1"), "all", False)
    assert felix_of([], "n1", "here") is None


def test_a_healthy_node_is_all_ok() -> None:
    """Nothing is wrong, nothing is to be done, and each check has spoken."""
    findings = examine(healthy())
    assert [(finding.check, finding.fix) for finding in findings if finding.status != "ok" or finding.fix] == []
    assert " ".join(finding.check for finding in findings) == (
        "log-rule kernel-log data-plane felix container syslog file format prefix clock store target"
    )


@pytest.mark.parametrize("name", CASES)
def test_findings(name: str) -> None:
    """Each fault is found by its check, with its status, its cause and its remedy."""
    facts, check, status, found, fix = CASES[name]
    findings = [finding for finding in examine(facts) if finding.check == check and finding.status == status]
    assert any(found in finding.found and fix in finding.fix for finding in findings), examine(facts)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[2] in ("fail", "warn", "skip")])
def test_whatever_is_not_ok_has_a_remedy(name: str) -> None:
    """A finding that is not "ok" says what to do, unless there is only nothing to compare."""
    for finding in examine(CASES[name][0]):
        assert finding.fix or finding.status in ("ok", "skip"), finding


@pytest.mark.parametrize(
    ("selector", "notice", "info"),
    [
        ("*.*", True, True),
        ("kern.*", True, True),
        ("kern.notice", True, False),
        ("kern.info", True, True),
        ("kern.warn", False, False),
        ("*.=notice", True, False),
        ("*.*;auth,authpriv.none", True, True),
        ("*.*;kern.none", False, False),
        ("*.info;kern.!notice", False, True),
        ("kern.*;kern.!=info", True, False),
        ("mail,news.*", False, False),
        ("mail,kern.debug", True, True),
        ("*.emerg", False, False),
    ],
)
def test_selectors(selector: str, notice: bool, info: bool) -> None:
    """What a classic selector takes of the kernel's messages, as rsyslog.conf(5) says."""
    assert (takes(selector, "notice"), takes(selector, "info")) == (notice, info)


def test_rules_as_the_tools_print_them() -> None:
    """LOG rules are found in both tools' output, with prefix and counter, whatever stands in a comment."""
    saved = r"""[7:420] -A cali-pi-x -m comment --comment "say \"-j LOG\"" -j LOG --log-prefix "calico-packet: "
-A y -j LOG
[1:1] -A z -m comment --comment "no -j LOG here" -j DROP
"""
    found = list(iptables_rules("iptables-nft-save", saved))
    assert found[0] == LogRule("iptables-nft", "cali-pi-x", "calico-packet: ", 7)
    assert found[1] == LogRule("iptables-nft", "y", "", None)
    expressions = {
        "c": [{"counter": {"packets": 3}}, {"log": {"prefix": "p"}}],
        "d": [{"log": None}],
        "e": [{"drop": None}],
    }
    listed = {"nftables": [{"rule": {"chain": chain, "expr": expr}} for chain, expr in expressions.items()]}
    assert list(nft_rules("nft", json.dumps(listed))) == [LogRule("nft", "c", "p", 3), LogRule("nft", "d", "", None)]


def test_looking_takes_no_lock(tmp_path: Path) -> None:
    """While the doctor looks at a store without end, a writer is never refused."""
    store = str(tmp_path / "store")
    with Writer(store) as writer:
        writer.commit(Commit())
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            store_facts(store)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(5):
            Writer(store).close()
    finally:
        stop.set()
        thread.join()


def doctor(*words: str, inside: str = "", user: str = "") -> tuple[int, list[Finding]]:
    """Exit code and findings of the real command, in a network namespace, or as another user."""
    place = ("ip", "netns", "exec", inside) if inside else ()
    right = ("setpriv", "--reuid", user, "--regid", user, "--clear-groups") if user else ()
    found = subprocess.run(
        [*place, *right, *DENYLOG, "doctor", "-o", "json", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in found.stderr, found.stderr
    return found.returncode, [Finding(**finding) for finding in json.loads(found.stdout)]


def bad(found: tuple[int, list[Finding]], check: str) -> Finding:
    """The failure of a check; the exit code says that there is one."""
    code, findings = found
    assert code == 1
    return next(finding for finding in findings if (finding.check, finding.status) == (check, "fail"))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log with packets of a moment ago."""
    path = tmp_path / "log"
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    path.write_text("".join(stamp + line[32:] for line in lines(range(3)).splitlines(keepends=True)))
    return path


needs_root = pytest.mark.skipif(
    bool(missing("iptables", "nft", "setpriv")), reason=missing("iptables", "nft", "setpriv")
)


@contextmanager
def rsyslog(folder: Path, configuration: str) -> Iterator[None]:
    """A real rsyslogd of the test's own, with the log already open."""
    if not shutil.which("rsyslogd"):
        pytest.skip("needs rsyslog")
    (folder / "rsyslog.conf").write_text(configuration)
    command = ["rsyslogd", "-n", "-f", str(folder / "rsyslog.conf"), "-i", str(folder / "pid")]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 10
        while not (folder / "pid").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def net() -> Iterator[Network]:
    """Two network namespaces in which logging is allowed."""
    with network("doc") as made:
        yield made


@pytest.mark.system
@needs_root
def test_no_log_rule(net: Network, log: Path, tmp_path: Path) -> None:
    """A namespace without a LOG rule: no Log policy, and how to make one."""
    found = bad(doctor(str(log), "--store", str(tmp_path / "store"), inside=net.pod), "log-rule")
    assert "no LOG rule" in found.found
    assert "denylog policies generate" in found.fix


@pytest.mark.system
@needs_root
def test_namespace_logging_off(net: Network, log: Path, tmp_path: Path) -> None:
    """Rules in a namespace of their own with nf_log_all_netns = 0 print nothing; the doctor names the setting."""
    net.log_with_iptables()
    LOG_ALL.write_text("0")
    try:
        found = bad(doctor(str(log), "--store", str(tmp_path / "store"), inside=net.pod), "kernel-log")
    finally:
        LOG_ALL.write_text("1")
    assert "nf_log_all_netns is 0" in found.found
    assert "sysctl -w net.netfilter.nf_log_all_netns=1" in found.fix


@pytest.mark.system
@needs_root
def test_rsyslog_does_not_read_the_kernel(tmp_path: Path) -> None:
    """A running rsyslogd without imklog is found by the file it is to write, and told to load it."""
    log = tmp_path / "log"
    configuration = (
        f'module(load="imuxsock" SysSock.Use="off")\n#module(load="imklog")\n'
        f'input(type="imuxsock" Socket="{tmp_path}/socket")\n*.* action(type="omfile" file="{log}")\n'
    )
    with rsyslog(tmp_path, configuration):
        found = bad(doctor(str(log), "--store", str(tmp_path / "store")), "syslog")
    assert f"{tmp_path}/rsyslog.conf) writes {log} and does not read the kernel's messages" in found.found
    assert 'module(load="imklog")' in found.fix


@pytest.mark.system
@needs_root
def test_wrong_permissions() -> None:
    """Somebody who may not read the log is told whose it is and which group to join."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        log = Path(folder) / "log"
        log.write_text(lines([0]))
        shutil.chown(log, "root", "adm")
        log.chmod(0o640)
        found = bad(doctor(str(log), "--store", f"{folder}/store", user="65534"), "file")
    assert "root:adm 0640" in found.found
    assert "usermod -aG adm" in found.fix


def test_wrong_prefix(log: Path, tmp_path: Path) -> None:
    """Lines with another prefix lead to the option that takes them."""
    log.write_text(log.read_text().replace("calico-packet", "k8s-deny"))
    found = bad(doctor(str(log), "--store", str(tmp_path / "store")), "prefix")
    assert "3 netfilter lines have the prefix 'k8s-deny'" in found.found
    assert f"--log-prefix k8s-deny {log}" in found.fix


def test_odd_paths(tmp_path: Path) -> None:
    """A folder, a pipe and a store in a file are findings, not crashes, and nothing waits for a pipe's writer."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "pipe"):
        assert "is no regular file" in bad(doctor(str(path), "--store", str(tmp_path / "store")), "file").found
    assert "is a file" in bad(doctor(str(path), "--store", str(tmp_path / "file")), "store").found


def test_locked_store(log: Path, tmp_path: Path) -> None:
    """A store that somebody else writes to is named with that process and how to end it."""
    with Writer(str(tmp_path / "store")):
        found = bad(doctor(str(log), "--store", str(tmp_path / "store")), "store")
    assert f"is locked by process {os.getpid()}" in found.found
    assert f"kill {os.getpid()}" in found.fix


@pytest.mark.parametrize("days", [-1, 1])
def test_clock_a_day_off(log: Path, tmp_path: Path, days: int) -> None:
    """Stamps a day before or after the time of the file are a wrong clock."""
    then = (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="seconds")
    log.write_text("".join(then + line[25:] for line in log.read_text().splitlines(keepends=True)))
    found = bad(doctor(str(log), "--store", str(tmp_path / "store")), "clock")
    assert f"1.0 days {'ahead of' if days > 0 else 'behind'} the time of the file" in found.found
    assert "timedatectl" in found.fix


def test_unreachable_target(log: Path, tmp_path: Path) -> None:
    """A server that nobody listens at is named, with a command to try it."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    words = (str(log), "--store", str(tmp_path / "store"), "--forward", f"tcp://127.0.0.1:{port}")
    found = bad(doctor(*words), "target")
    assert "refused" in found.found.lower()
    assert f"nc -vz 127.0.0.1 {port}" in found.fix


def test_a_target_that_is_none_keeps_its_secret(log: Path, tmp_path: Path) -> None:
    """An address with a password is refused without showing it."""
    words = (str(log), "--store", str(tmp_path / "store"), "--forward", "tcp://me:hunter2@siem:514")
    code, findings = doctor(*words)
    assert "names a user or a password" in bad((code, findings), "target").found
    assert "hunter2" not in repr(findings)


@pytest.mark.system
@needs_root
def test_a_healthy_set_up_has_no_failure(net: Network, tmp_path: Path) -> None:
    """Rules, kernel, rsyslog, file, store and target in order: all is ok, save for a clock that nobody synchronises."""
    net.log_with_iptables()
    net.inside(net.pod, "sysctl", "-qw", "net.ipv4.ip_local_port_range=20000 30000")  # others are denied
    log, target = tmp_path / "log", tmp_path / "port"
    listen = (
        "import pathlib, socket, sys; s = socket.create_server(('127.0.0.1', 0));"
        "pathlib.Path(sys.argv[1]).write_text(str(s.getsockname()[1]));\nwhile True: s.accept()"
    )
    server = subprocess.Popen(["ip", "netns", "exec", net.pod, sys.executable, "-c", listen, str(target)])
    try:
        with rsyslog(tmp_path, f'module(load="imklog")\nkern.* action(type="omfile" file="{log}" '
                     'template="RSYSLOG_FileFormat")\n'):  # fmt: skip
            deadline = time.monotonic() + 30
            while not log.exists() or "calico-packet" not in log.read_text()[-2000:]:
                assert time.monotonic() < deadline
                run("ip", "netns", "exec", net.client, "ping", "-c", "1", "-W", "1", "198.51.100.2", check=False)
            words = (str(log), "--store", str(tmp_path / "store"), "--forward", f"tcp://127.0.0.1:{target.read_text()}")
            code, findings = doctor(*words, inside=net.pod)
    finally:
        server.kill()
        server.wait()
    odd = [finding.found for finding in findings if finding.status != "ok" and finding.check != "felix"]
    assert odd in ([], ["the kernel's clock is not synchronised"])
    assert code == 0


def test_what_is_shown_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """A prefix out of a log, or the name of a file, is printed without what a terminal would act on."""
    show([Finding("prefix", "fail", "lines have \x1b[2J\n\u202e", "denylog collect --log-prefix '\x1b]0;x\x07'")])
    assert capsys.readouterr().out.count("\n") == 2
    show([Finding("prefix", "fail", "\x1b[2J\u202e", "\x07")])
    assert not set(capsys.readouterr().out) & {"\x1b", "\u202e", "\x07"}


def test_a_name_that_does_not_resolve_is_shown_with_its_port(tmp_path: Path) -> None:
    """The remedy of a target that does not answer names host and port, also where the URL left the port out."""
    _, findings = doctor(str(tmp_path / "log"), "--store", str(tmp_path), "--forward", "relp://nosuch.invalid")
    found = next(finding for finding in findings if finding.check == "target")
    assert found.found.startswith("relp://nosuch.invalid:2514 does not answer")
    assert "nc -vz nosuch.invalid 2514" in found.fix
