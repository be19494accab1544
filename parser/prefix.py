"""The log prefix: is it ours, what does it say of the policy, and is the line a follow-up of an earlier denial?

Rule: what a cut removed is not known; only the name of the policy is kept as far as it can be seen.
Calico makes the prefix from `logPrefix` and adds ": " (felix/rules/policy.go generateLogPrefix,
felix/iptables/actions.go LogAction); the kernel keeps 29 bytes of it on iptables (xt_LOG: char prefix[30]) and 127 on
nftables (NF_LOG_PREFIXLEN).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from parser.options import Options
from parser.patterns import beginning

CUTS = (29, 127)
"""Lengths at which iptables and nftables cut a prefix."""

LONGEST = 255
"""More than any prefix has, even with control characters written as #ooo; longer texts are not searched for one."""

FOLLOW_UPS = ("est", "rst", "icmp-err")
"""Suffixes of the replies that Calico logs after a denial (felix, calico PR 13479)."""

_SPECIFIER = re.compile("(%[tknp])")
_FOLLOW_UP = rf"(?:-(?P<follow>{'|'.join(FOLLOW_UPS)}))?"
_NAME = r"[A-Za-z0-9.-]"
_GROUPS = {"%t": "tier", "%k": "kind", "%n": "name", "%p": "path"}
_CONTROL = re.compile(r"#(0[0-3][0-7]|177)")


@dataclass(frozen=True, slots=True)
class Prefix:
    """What a prefix says: its text without the closing colon and blank, and the policy named by it."""

    text: str
    tier: str | None = None
    kind: str | None = None
    namespace: str | None = None
    name: str | None = None
    follow_up: str | None = None


@dataclass(frozen=True, slots=True)
class _Matcher:
    """A word or a format: the pattern of its whole text, and of a text that the kernel cut."""

    whole: re.Pattern[str]
    cut: re.Pattern[str]


def match(text: str, options: Options) -> Prefix | None:
    """What the text before `IN=` says; None where it is not one of ours (any is, with `any_prefix`)."""
    if len(text) > LONGEST:
        return Prefix(_tidy(text)) if options.any_prefix else None
    shown, text = text, text.lstrip(" ")  # some templates of rsyslog put a second blank after the tag
    for matcher in _matchers(options.prefixes):
        if found := matcher.whole.match(text):
            return _read(text, found, cut=False)
        if len(text.encode()) in CUTS and (found := matcher.cut.match(text)):
            return _read(text, found, cut=True)
    return Prefix(_tidy(shown)) if options.any_prefix else None


def find(text: str, options: Options) -> int | None:
    """Where one of our prefixes begins in a text that may hold something before it; None where there is none."""
    starts = [found.start() for pattern in _searches(options.prefixes) if (found := pattern.search(text))]
    return min(starts, default=None)


def _tidy(text: str) -> str:
    """The text as the administrator wrote it: rsyslog's #ooo undone (RFC 5424 has none of it), `: ` removed."""
    return _CONTROL.sub(lambda found: chr(int(found[1], 8)), text).rstrip(": ")


def _read(text: str, found: re.Match[str], *, cut: bool) -> Prefix:
    parts = {name: value for name, value in found.groupdict().items() if value}
    touched = {name for name in parts if cut and found.end(name) == len(text)}
    namespace, named = _path(parts["path"], cut="path" in touched) if "path" in parts else (None, None)
    tier, kind = (None if group in touched else parts.get(group) for group in ("tier", "kind"))
    return Prefix(_tidy(text), tier, kind, namespace, parts.get("name") or named, parts.get("follow"))


def _path(path: str, *, cut: bool) -> tuple[str | None, str | None]:
    """`namespace/name`, or a name alone; cut before a slash is seen, it may be either."""
    if "/" in path:
        namespace, name = path.split("/", 1)
        return namespace, name or None
    return (None, None) if cut else (None, path)


@lru_cache(maxsize=64)
def _matchers(prefixes: tuple[str, ...]) -> tuple[_Matcher, ...]:
    return tuple(_format(prefix) if _SPECIFIER.search(prefix) else _word(prefix) for prefix in prefixes)


@lru_cache(maxsize=64)
def _searches(prefixes: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    """Our words anywhere in a text: how an untrusted line is recognised."""
    words = [_SPECIFIER.split(prefix)[0].rstrip(": ") for prefix in prefixes]
    return tuple(re.compile(rf"(?<!\w){re.escape(word)}(?!\w)") for word in words if word)


def _word(prefix: str) -> _Matcher:
    word = re.escape(prefix.rstrip(": "))
    cut = "|".join(re.escape((prefix.rstrip() + ": ")[:length]) for length in CUTS)
    return _Matcher(re.compile(rf"{word}{_FOLLOW_UP}(?=$|[: ])"), re.compile(rf"(?:{cut})\Z"))


def _format(prefix: str) -> _Matcher:
    """A format; older releases of Calico print it as it is, with its specifiers."""
    parts = [(part, _GROUPS.get(part)) for part in _SPECIFIER.split(prefix) if part]
    whole = "".join(_named(part, group, index, parts, again=True) for index, (part, group) in enumerate(parts))
    cut = beginning(": ")
    for index, (part, group) in reversed(list(enumerate(parts))):
        element = _named(part, group, index, parts, again=False)
        cut = f"{element}{cut}" if group else f"(?:{element}{cut}|{beginning(part)})"
    closed = rf"{whole}{_FOLLOW_UP}: ?\Z|{re.escape(prefix)}(?=$|[: ])"
    return _Matcher(re.compile(closed), re.compile(rf"{cut}\Z"))


def _named(part: str, group: str | None, index: int, parts: list[tuple[str, str | None]], *, again: bool) -> str:
    """The pattern of one part: a specifier that comes again must show the same value (in a cut text, as much of it)."""
    if group is None:
        return re.escape(part)
    name = (
        f"{_NAME}*?" if again else f"{_NAME}*"
    )  # whole: as short as can be, so that a suffix is not taken for a name's end
    value = f"{name}(?:/{name})?" if part == "%p" else name
    if any(earlier == group for _, earlier in parts[:index]):
        return f"(?P={group})" if again else value
    return f"(?P<{group}>{value})"
