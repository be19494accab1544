"""The doctor's checks of the node: from a Log policy's rules through the kernel to the daemon that writes the log.

Rule: pure; what cannot be seen is skipped with its reason. See net/netfilter/nf_log.c for namespaces and loggers.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from collector.daemons import Daemon, Journald
from collector.facts import Facts, Log, Unknown
from collector.felix import Felix
from collector.findings import Finding, Status, ours, prefixes, word

FRESH = timedelta(minutes=10)
_GENERATE = "denylog policies generate POLICIES > log.yaml && kubectl apply -f log.yaml"
_NETNS = "on the machine itself: sysctl -w net.netfilter.nf_log_all_netns=1"


def check_rules(facts: Facts) -> Iterator[Finding]:
    """Is a Log policy in force?"""
    rules, found = facts.rules, ours(facts)
    if found:
        chains = sorted({rule.chain for rule in found})
        matched = sum(rule.packets or 0 for rule in found)
        shown = ", ".join(chains[:3]) + (", …" if len(chains) > 3 else "")
        yield Finding("log-rule", "ok", f"{len(found)} LOG rules in {shown}; they matched {matched:,} packets")
    elif others := [rule for rule in rules.found if "cali" in rule.chain] or list(rules.found):
        prefix = others[0].prefix
        yield Finding(
            "log-rule",
            "fail",
            f"the LOG rules have the prefix {prefix!r}, denylog looks for {prefixes(facts)}",
            f"denylog collect --log-prefix {word(prefix)} …, or `denylog policies felix` for the prefix in Calico",
        )
    elif rules.trouble or not rules.programs:
        why = rules.trouble[0] if rules.trouble else "neither iptables nor nft is installed here"
        yield Finding("log-rule", "skip", f"the rules cannot be read: {why}", "sudo denylog doctor")
    elif rules.calico:
        yield Finding(
            "log-rule", "fail", "Calico's chains are there, and no LOG rule: no Log policy is in force", _GENERATE
        )
    elif not isinstance(facts.kernel.bpf, Unknown) and facts.kernel.bpf:
        yield Finding("log-rule", "skip", "Calico runs its eBPF data plane, which has no such rules")
    else:
        yield Finding(
            "log-rule",
            "fail",
            "there is no LOG rule and no chain of Calico's in this network namespace",
            f"run this in the node's network namespace (hostNetwork: true); if it is that one: {_GENERATE}",
        )


def check_kernel(facts: Facts) -> Iterator[Finding]:
    """Does the kernel log what the rules match?"""
    kernel = facts.kernel
    if not kernel.initial and kernel.log_all is not True:
        yield _netns(kernel.log_all)
        return
    if ours(facts) and kernel.loggers and "nf_log_ipv4" not in kernel.loggers:
        yield Finding(
            "kernel-log",
            "fail",
            "no logger for IPv4 packets is loaded (/proc/net/netfilter/nf_log)",
            "modprobe nf_log_syslog",
        )
        return
    matched = sum(rule.packets or 0 for rule in ours(facts))
    if isinstance(kernel.printed, Unknown):
        yield Finding(
            "kernel-log", "skip", f"the kernel's buffer cannot be read: {kernel.printed.why}", "sudo denylog doctor"
        )
    elif matched and not kernel.printed and kernel.whole:
        yield Finding(
            "kernel-log",
            "fail",
            f"the rules matched {matched:,} packets, the kernel printed nothing",
            "sysctl net.netfilter.nf_log_all_netns; dmesg | tail; cat /proc/net/netfilter/nf_log",
        )
    else:
        where = "" if kernel.initial else "; this network namespace is one whose rules may log (nf_log_all_netns = 1)"
        yield Finding("kernel-log", "ok", f"{kernel.printed:,} lines with our prefix in the kernel's buffer{where}")


def _netns(setting: bool | None) -> Finding:
    what = "this is not the machine's own network namespace (a container, or a node that is one, as Kind's are)"
    if setting is None:
        return Finding("kernel-log", "warn", f"{what}; whether its rules may log cannot be seen from here", _NETNS)
    return Finding("kernel-log", "fail", f"{what}, and nf_log_all_netns is 0: its LOG rules print nothing", _NETNS)


def check_dataplane(facts: Facts) -> Iterator[Finding]:
    """Does Calico's data plane write to the kernel's log at all?"""
    bpf = facts.kernel.bpf
    if isinstance(bpf, Unknown):
        yield Finding("data-plane", "skip", bpf.why, "sudo denylog doctor")
    elif bpf:
        yield Finding(
            "data-plane",
            "warn" if ours(facts) else "fail",
            f"Calico's eBPF data plane is loaded ({bpf[0]}): its Log action writes to the trace pipe, not to the log",
            "cat /sys/kernel/tracing/trace_pipe | denylog ingest -",
        )
    else:
        yield Finding(
            "data-plane", "ok", "no programs of Calico's eBPF data plane: Log rules write to the kernel's log"
        )


def check_container(facts: Facts) -> Iterator[Finding]:
    """Are we where the node's rules are?"""
    kernel = facts.kernel
    if kernel.container == "kind":
        status: Status = "ok" if kernel.log_all else "warn"
        yield Finding(
            "container",
            status,
            "this node is a container (Kind): all nodes share one kernel log",
            "" if kernel.log_all else _NETNS,
        )
    elif kernel.container and not kernel.initial and not kernel.log_all:
        yield Finding(
            "container",
            "warn",
            f"this {kernel.container} has a network namespace of its own, not the node's",
            "hostNetwork: true, or run `denylog doctor` on the node",
        )
    else:
        where = "the machine's own network namespace" if kernel.initial else "a network namespace whose rules may log"
        yield Finding("container", "ok", f"this {kernel.container or 'machine'} is in {where}")


def check_syslog(facts: Facts) -> Iterator[Finding]:
    """Does the daemon that writes the file hear the kernel?"""
    for log in facts.logs:
        if isinstance(log.daemons, Unknown):
            yield Finding("syslog", "skip", f"{log.path}: {log.daemons.why}", "run `denylog doctor` on the node")
        elif log.daemons:
            yield from (_daemon(daemon, log, facts) for daemon in log.daemons)
        elif log.written is not None and facts.now - log.written < FRESH:
            yield Finding(
                "syslog", "ok", f"{log.path} is being written to (no syslog daemon seen from here has it open)"
            )
        elif not facts.root:
            yield Finding(
                "syslog", "skip", f"{log.path}: who writes it can only be seen by root", "sudo denylog doctor"
            )
        else:
            yield Finding(
                "syslog",
                "fail",
                f"no syslog daemon has {log.path} open, and none is set up to write it",
                "systemctl enable --now rsyslog",
            )
    if facts.journal is not None:
        yield _journal(facts.journal)


def _daemon(daemon: Daemon, log: Log, facts: Facts) -> Finding:
    who = f"{daemon.name} (process {daemon.pid}, {daemon.configuration})"
    rules, felix = ours(facts), facts.felix
    nft = all(rule.program == "nft" for rule in rules) if rules else isinstance(felix, Felix) and felix.nftables
    level = "info" if nft else "notice"
    if daemon.kernel is None:
        return Finding(
            "syslog", "skip", f"{who} writes {log.path}; its configuration cannot be read", "sudo denylog doctor"
        )
    if not daemon.kernel:
        return Finding(
            "syslog", "fail", f"{who} writes {log.path} and does not read the kernel's messages", _input(daemon)
        )
    if daemon.passes is not None and level not in daemon.passes:
        return Finding(
            "syslog",
            "fail",
            f"{who} hears the kernel, and its rule for {log.path} leaves out kern.{level}",
            f"add to {daemon.configuration}: kern.*  {log.path}",
        )
    return Finding("syslog", "ok", f"{who} writes {log.path} and reads the kernel's messages ({daemon.kernel})")


def _input(daemon: Daemon) -> str:
    if daemon.name == "rsyslogd":
        return f"""add module(load="imklog") to {daemon.configuration}, then systemctl restart rsyslog"""
    return f"add a source with system() to {daemon.configuration}, then systemctl restart {daemon.name}"


_JOURNALD = {
    "Storage": (("none",), "keeps nothing"),
    "ReadKMsg": (("no", "false", "0", "off"), "does not read the kernel's messages"),
    "MaxLevelStore": (("emerg", "alert", "crit", "err", "warning", "0", "1", "2", "3", "4"), "drops kern.notice"),
}


def _journal(found: Journald) -> Finding:
    if not found.running:
        return Finding("syslog", "fail", "journald does not run here", "systemctl start systemd-journald")
    for name, (values, meaning) in _JOURNALD.items():
        if found.settings.get(name, "").lower() in values:
            return Finding(
                "syslog",
                "fail",
                f"journald {meaning} ({name}={found.settings[name]})",
                f"remove {name}= from /etc/systemd/journald.conf, then systemctl restart systemd-journald",
            )
    return Finding("syslog", "ok", "journald runs and keeps the kernel's messages")
