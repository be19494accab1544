"""The doctor's checks of what Felix is told to do: prefix, rate limit, data plane, names of interfaces.

Rule: pure; FelixConfiguration says what should be, so what the node itself shows is judged elsewhere and goes before.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from collector.facts import Facts, Unknown
from collector.felix import Felix
from collector.findings import Finding, ours, prefixes
from parser.prefix import match

_TRACE = "cat /sys/kernel/tracing/trace_pipe | denylog ingest -"


def check_felix(facts: Facts) -> Iterator[Finding]:
    """Does Felix log what denylog reads, and all of it?"""
    felix = facts.felix
    if isinstance(felix, Unknown):
        yield Finding(
            "felix",
            "skip",
            felix.why,
            "kubectl get felixconfigurations -o json | denylog inventory import -, or denylog doctor --cluster",
        )
        return
    problems = [found for check in _CHECKS for found in check(felix, facts)]
    yield from problems
    if not problems:
        level = "info (nftables)" if felix.nftables else "notice (iptables)"
        yield Finding(
            "felix", "ok", f"{_who(felix)}: prefix {felix.prefix!r}, no rate limit, kern.{level}{_own(felix)}"
        )


def _who(felix: Felix) -> str:
    return f"FelixConfiguration {' and '.join(felix.names)} ({felix.source})"


def _own(felix: Felix) -> str:
    """Said, since it is easily taken for the severity of the packets' lines, which cannot be set."""
    if not felix.severities:
        return ""
    return f"; {', '.join(felix.severities)} is about Felix' own messages, not about packets"


def _dataplane(felix: Felix, facts: Facts) -> Iterator[Finding]:
    if felix.bpf:
        yield Finding(
            "felix",
            "warn" if ours(facts) else "fail",
            f"{_who(felix)}: bpfEnabled is set: the Log action writes to the trace pipe, not to the kernel's log",
            _TRACE,
        )


def _prefix(felix: Felix, facts: Facts) -> Iterator[Finding]:
    given = f"--log-prefix {shlex.quote(felix.prefix)}"
    found = match(felix.printed, facts.options)
    if felix.bpf:
        return  # its lines have no prefix
    if found is None:
        yield Finding(
            "felix",
            "fail",
            f"{_who(felix)}: logPrefix is {felix.prefix!r}, denylog looks for {prefixes(facts)}",
            f"denylog collect {given} …",
        )
    elif felix.speaks and not any((found.tier, found.kind, found.name)):
        yield Finding(
            "felix",
            "warn",
            f"{_who(felix)}: logPrefix is {felix.prefix!r}; denylog takes the lines, but reads no policy from them",
            f"denylog collect {given} …",
        )


def _rate(felix: Felix, facts: Facts) -> Iterator[Finding]:
    if felix.rate and not felix.bpf:
        yield Finding(
            "felix",
            "warn",
            f"{_who(felix)}: logActionRateLimit is {felix.rate} (burst {felix.burst}): beyond it a rule logs nothing, "
            "so all counts are lower bounds",
            f"denylog findings --rate-limit {felix.rate} takes it into account; remove the limit to see everything",
        )


def _backend(felix: Felix, facts: Facts) -> Iterator[Finding]:
    programs = facts.rules.programs
    if felix.legacy and not felix.bpf and not facts.rules.found and not any("legacy" in name for name in programs):
        yield Finding(
            "felix",
            "warn",
            f"{_who(felix)}: iptablesBackend is Legacy, and there is no iptables-legacy here to look at its rules",
            "iptables-legacy-save -c | grep LOG, on the node",
        )


def _interfaces(felix: Felix, facts: Facts) -> Iterator[Finding]:
    known = facts.options.interface_prefix
    if known not in felix.interfaces:
        yield Finding(
            "felix",
            "warn",
            f"{_who(felix)}: the interfaces of pods begin with {', '.join(felix.interfaces)}, denylog expects {known}: "
            "it cannot tell the direction of a packet, nor its pod by the interface",
            f"denylog collect --interface-prefix {shlex.quote(felix.interfaces[0])} …",
        )


_CHECKS = (_dataplane, _prefix, _rate, _backend, _interfaces)
