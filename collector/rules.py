"""The kernel's LOG rules in this network namespace: chain, prefix, and how many packets they matched.

Rule: everything is read with the system's own tools, nothing is changed; what cannot be read is said, not guessed.
iptables-nft's rules also show up in nft's list, there without their prefix, so none is counted twice.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

_TIMEOUT_S = 20.0  # a node with many Services has some hundred thousand rules


@dataclass(frozen=True, slots=True)
class LogRule:
    """One rule that logs: the program that shows it, its chain, its prefix as given, and the packets it matched."""

    program: str
    chain: str
    prefix: str
    packets: int | None


@dataclass(frozen=True, slots=True)
class Rules:
    """What the programs show: the rules that log, whether Calico's chains are there, and what could not be read."""

    found: tuple[LogRule, ...]
    calico: bool
    programs: tuple[str, ...]
    trouble: tuple[str, ...]


def read_rules() -> Rules:
    """Ask every program that is installed."""
    found: list[LogRule] = []
    programs: list[str] = []
    trouble: list[str] = []
    calico = False
    for program, arguments, parse in _PROGRAMS:
        if shutil.which(program) is None:
            continue
        try:
            text = _ask(program, *arguments)
        except (OSError, subprocess.SubprocessError) as error:
            trouble.append(f"{program}: {_sentence(error)}")
            continue
        programs.append(program)
        calico = calico or "cali-" in text
        found.extend(parse(program, text))
    return Rules(tuple(found), calico, tuple(programs), tuple(trouble))


def _ask(*command: str) -> str:
    found = subprocess.run(
        command,
        capture_output=True,
        check=True,
        timeout=_TIMEOUT_S,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
    )
    return found.stdout


def _sentence(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in str(error.stderr).splitlines() if line.strip()]
        return lines[0].strip() if lines else f"ended with status {error.returncode}"
    return str(error)


def iptables_rules(program: str, text: str) -> Iterator[LogRule]:
    """The rules with target LOG in what `iptables-save -c` prints: `[packets:bytes] -A chain … -j LOG …`."""
    for line in text.splitlines():
        if " -j LOG" not in line:
            continue
        words = shlex.split(line)
        counters = words[0].strip("[]").partition(":")[0] if words[0].startswith("[") else ""
        yield LogRule(
            program.removesuffix("-save"),
            _after(words, "-A"),
            _after(words, "--log-prefix"),
            int(counters) if counters.isdigit() else None,
        )


def _after(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1] if flag in words[:-1] else ""


def nft_rules(program: str, text: str) -> Iterator[LogRule]:
    """The rules with a log statement in what `nft -j list ruleset` prints; a counter stands before it, or after."""
    for entry in json.loads(text or "{}").get("nftables", ()):
        rule = entry.get("rule")
        if rule is None:
            continue
        parts: Iterable[dict[str, Any]] = rule.get("expr", ())
        merged = {key: value for part in parts for key, value in part.items()}
        if "log" in merged:
            log, counter = merged["log"] or {}, merged.get("counter")
            packets = counter.get("packets") if isinstance(counter, dict) else None
            yield LogRule(program, str(rule.get("chain", "")), str(log.get("prefix", "")), packets)


_PROGRAMS: tuple[tuple[str, tuple[str, ...], Callable[[str, str], Iterator[LogRule]]], ...] = (
    ("iptables-nft-save", ("-c",), iptables_rules),
    ("ip6tables-nft-save", ("-c",), iptables_rules),
    ("iptables-legacy-save", ("-c",), iptables_rules),
    ("ip6tables-legacy-save", ("-c",), iptables_rules),
    ("nft", ("-j", "-t", "list", "ruleset"), nft_rules),
)
