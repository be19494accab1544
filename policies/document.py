"""Text to trees: YAML and JSON read into nodes that know their line and column.

Rule: a scalar means what Kubernetes' YAML library makes of it (go-yaml v2: `yes` is a boolean, `30:45` is text), keys
are text and unique, and nothing deeper or larger than the named limits is followed. JSON is read as the YAML it is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn, TypeAlias

import yaml

from policies.errors import PathStep, PolicyError, Problem
from policies.model import Place

Scalar: TypeAlias = str | int | float | bool | None
Position: TypeAlias = tuple[int, int]

MAX_DEPTH = 100
"""Levels of nesting; Kubernetes objects have fewer than thirty."""
MAX_NODES = 5_000_000
"""Nodes of one text after aliases are followed, so that a small file cannot grow without end."""


class Node(NamedTuple):
    """A value with its position; `key` is the position of its key (its own where it has none). Lines count from 1."""

    value: dict[str, Node] | list[Node] | Scalar
    position: Position
    key: Position

    def plain(self) -> Any:
        """The value without positions: dict, list, str, int, float, bool or None."""
        match self.value:
            case dict():
                return {key: node.plain() for key, node in self.value.items()}
            case list():
                return [node.plain() for node in self.value]
        return self.value

    def at(self, path: tuple[PathStep, ...]) -> Node:
        """The node at a path, or the last one on the way that exists."""
        node = self
        for step in path:
            try:
                node = node.value[step]  # type: ignore[index, assignment]
            except (KeyError, IndexError, TypeError):
                break
        return node


def tree(value: Any) -> Node:
    """A plain value (dict, list or scalar) as a node; it was written nowhere, so its position is (0, 0)."""
    match value:
        case dict():
            return Node({str(key): tree(each) for key, each in value.items()}, (0, 0), (0, 0))
        case list():
            return Node([tree(each) for each in value], (0, 0), (0, 0))
    return Node(value, (0, 0), (0, 0))


def nodes(text: str, file: str) -> Iterator[Node]:
    """The documents of a text, empty ones left out. Raises PolicyError where it is no YAML or JSON."""
    builder = _Builder(file)
    try:
        for event in yaml.parse(_json_as_yaml(text), Loader=_LOADER):
            builder.take(event)
            if builder.finished is not None:
                yield builder.finished
                builder.finished = None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
        sentence = " ".join(filter(None, [error.context, error.problem]))
        raise PolicyError([Problem("syntax", where, "", f"not YAML: {sentence}", _ADVICE)]) from error
    except yaml.YAMLError as error:
        raise PolicyError([Problem("syntax", Place(file), "", f"not YAML: {' '.join(str(error).split())}")]) from error


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_ADVICE = "check the indentation and the colons of this line and the one before"


_SURROGATES = re.compile(r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB]..)\\u([dD][c-fC-F]..)")


def _json_as_yaml(text: str) -> str:
    """JSON may be indented with tabs and writes characters beyond the BMP as two escapes; libyaml takes neither."""
    if not text.lstrip().startswith(("{", "[")) or not ("\t" in text or _SURROGATES.search(text)):
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return _SURROGATES.sub(_character, text.replace("\t", " "))


def _character(found: re.Match[str]) -> str:
    high, low = int(found[2], 16), int(found[3], 16)
    return found[1] + chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))


# -- scalars ---------------------------------------------------------------------------------------------------------

_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(["", "~", "null", "Null", "NULL"]),
    **dict.fromkeys(["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"], True),
    **dict.fromkeys(["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"], False),
}
_NUMBERS: tuple[tuple[re.Pattern[str], Callable[[str], int | float]], ...] = (
    (re.compile(r"[-+]?(0|[1-9][0-9]*)"), int),
    (re.compile(r"[-+]?0o?[0-7]+"), lambda text: int(text.replace("o", ""), 8)),
    (re.compile(r"[-+]?0x[0-9a-fA-F]+"), lambda text: int(text, 16)),
    (re.compile(r"[-+]?0b[01]+"), lambda text: int(text, 2)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
)
MAX_DIGITS = 400
"""Longest number that is read as one; Python refuses integers of more than 4 300 digits."""

_WIDEST = range(-(2**63), 2**64)
"""What go-yaml takes as an integer (int64, else uint64); decimal digits beyond it are a float."""


def scalar(text: str) -> Scalar:
    """What an unquoted scalar means (go-yaml v2, resolve.go); no sexagesimal numbers, so `80:90` stays text."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789" or len(text) > MAX_DIGITS:
        return text
    digits = text.replace("_", "")
    for pattern, convert in _NUMBERS:
        if pattern.fullmatch(digits):
            number = convert(digits)
            if number in _WIDEST if isinstance(number, int) else math.isfinite(number):
                return number
    return text


def _scalar_of(event: yaml.ScalarEvent) -> Scalar:
    if event.tag in ("!", "tag:yaml.org,2002:str") or (event.tag is None and not event.implicit[0]):
        return str(event.value)
    return scalar(event.value)


# -- trees -----------------------------------------------------------------------------------------------------------


class _Frame:
    """A mapping or list that is still open."""

    __slots__ = ("anchor", "items", "key", "key_at", "merges", "position")

    def __init__(self, items: dict[str, Node] | list[Node], position: Position, anchor: str | None) -> None:
        self.items = items
        self.position = position
        self.anchor = anchor
        self.key: str | None = None
        self.key_at: Position = position
        self.merges: list[Node] = []


class _Builder:
    """Takes YAML events one by one; `finished` is the document that the last event completed."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.finished: Node | None = None
        self._open: list[_Frame] = []
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._count = 0
        self._started: dict[int, int] = {}

    def take(self, event: yaml.Event) -> None:
        handler = self._HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event)

    def _fail(self, position: Position, message: str, advice: str = "") -> NoReturn:
        raise PolicyError([Problem("syntax", Place(self.file, *position), "", message, advice)])

    def _begin_document(self, event: yaml.Event) -> None:
        self._anchors.clear()

    def _begin(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        frame = _Frame({} if isinstance(event, yaml.MappingStartEvent) else [], _position(event), event.anchor)
        if len(self._open) >= MAX_DEPTH:
            self._fail(frame.position, f"nested deeper than {MAX_DEPTH} levels")
        self._started[len(self._open)] = self._count
        self._open.append(frame)

    def _end(self, event: yaml.Event) -> None:
        frame = self._open.pop()
        for merged in frame.merges:
            self._merge(frame, merged)
        self._add(frame.items, frame.position, frame.anchor, self._count - self._started[len(self._open)])

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        self._add(_scalar_of(event), _position(event), event.anchor, 0, event.value)

    def _alias(self, event: yaml.AliasEvent) -> None:
        position = _position(event)
        if event.anchor not in self._anchors:
            self._fail(position, f"alias *{event.anchor} is not defined before this line")
        node, size = self._anchors[event.anchor]
        self._count += size
        self._add(node.value, position, None, size)

    def _add(self, value: Any, position: Position, anchor: str | None, size: int, written: str | None = None) -> None:
        self._count += 1
        if self._count > MAX_NODES:
            self._fail(position, f"more than {MAX_NODES} values once aliases are followed")
        frame = self._open[-1] if self._open else None
        node = Node(value, position, frame.key_at if frame and frame.key is not None else position)
        if anchor:
            self._anchors[anchor] = (node, size)
        if frame is None:
            self.finished = node if value is not None else None
        elif isinstance(frame.items, list):
            frame.items.append(node)
        else:
            self._add_to_mapping(frame, frame.items, node, written)

    def _add_to_mapping(self, frame: _Frame, items: dict[str, Node], node: Node, written: str | None) -> None:
        if frame.key is None:
            frame.key, frame.key_at = self._key(node, written), node.position
        elif frame.key == "<<":
            frame.merges.append(node)
            frame.key = None
        else:
            if frame.key in items:
                self._fail(frame.key_at, f"the key {frame.key!r} is written twice in one mapping", "keep one of them")
            items[frame.key] = node
            frame.key = None

    def _key(self, node: Node, written: str | None) -> str:
        if written is None:
            self._fail(node.position, "a mapping or list as a key")
        return written

    def _merge(self, frame: _Frame, merged: Node) -> None:
        sources = merged.value if isinstance(merged.value, list) else [merged]
        for source in sources:
            if not isinstance(source.value, dict) or not isinstance(frame.items, dict):
                self._fail(merged.position, "'<<' takes a mapping or a list of mappings")
            for key, node in source.value.items():
                frame.items.setdefault(key, node)

    _HANDLERS: Mapping[type, Callable[[_Builder, Any], None]] = {
        yaml.DocumentStartEvent: _begin_document,
        yaml.MappingStartEvent: _begin,
        yaml.SequenceStartEvent: _begin,
        yaml.MappingEndEvent: _end,
        yaml.SequenceEndEvent: _end,
        yaml.ScalarEvent: _scalar,
        yaml.AliasEvent: _alias,
    }


def _position(event: yaml.Event) -> Position:
    assert event.start_mark is not None  # every event that comes from a text has one
    return event.start_mark.line + 1, event.start_mark.column + 1
