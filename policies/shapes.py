"""What a written object may look like: shapes, and one walk that compares a tree with them.

Rule: a field that nobody would read is a mistake, never ignored. Names count with their case, `null` counts as absent,
and every complaint names the nearest thing that would have been right. The tables of fields are in `policies.fields`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from policies.document import Node
from policies.errors import PathStep, Problem, path_text
from policies.model import Place

Path: TypeAlias = tuple[PathStep, ...]


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value: `accepts` returns normally or raises ValueError with what is wrong."""

    name: str
    accepts: Callable[[object], object]


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of one shape."""

    item: Shape


@dataclass(frozen=True, slots=True)
class MapOf:
    """A mapping with free names and values of one shape."""

    value: Shape


@dataclass(frozen=True, slots=True)
class Fields:
    """A mapping with known names. `open`: other names are someone else's business, unless only their case is wrong."""

    known: Mapping[str, Shape]
    open: bool = False


@dataclass(frozen=True, slots=True)
class Anything:
    """Whatever is written: fields that have no meaning here."""


Shape: TypeAlias = Scalar | ListOf | MapOf | Fields | Anything


def _scalar(name: str, *types: type) -> Scalar:
    def accepts(value: object) -> None:
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise ValueError(f"{_shown(value)} where {name} is needed")

    return Scalar(name, accepts)


TEXT = _scalar("text", str)
FLAG = _scalar("true or false", bool)
NUMBER = _scalar("a number", int, float)
INTEGER = _scalar("a whole number", int)
TEXT_OR_INTEGER = _scalar("text or a whole number", str, int)
ANYTHING = Anything()


def _shown(value: object) -> str:
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case bool():
            return f"the boolean {str(value).lower()}"
        case int() | float():
            return f"the number {value}"
    return f"the text {value!r}"


@dataclass(slots=True)
class Check:
    """One comparison of a tree with a shape; `problems` grows in the order of the text."""

    file: str
    problems: list[Problem]
    whole: Fields | None = None

    def compare(self, node: Node, shape: Shape, path: Path = ()) -> None:
        """Compare and report. `null` is accepted everywhere, as by Kubernetes."""
        if node.value is None:
            return
        if self.whole is None and isinstance(shape, Fields):
            self.whole = shape
        match shape:
            case Scalar():
                self._scalar(node, shape, path)
            case ListOf():
                self._list(node, shape, path)
            case MapOf() | Fields():
                self._mapping(node, shape, path)

    def report(self, node: Node, path: Path, code: str, message: str, advice: str = "") -> None:
        place = Place(self.file, *(node.key if code in ("unknown-field", "wrong-case") else node.position))
        self.problems.append(Problem(code, place, path_text(path), message, advice))

    def _scalar(self, node: Node, shape: Scalar, path: Path) -> None:
        try:
            shape.accepts(node.value)
        except ValueError as error:
            advice = "put it in quotes" if shape is TEXT and not isinstance(node.value, dict | list) else ""
            self.report(node, path, "wrong-shape", str(error), advice)

    def _list(self, node: Node, shape: ListOf, path: Path) -> None:
        if not isinstance(node.value, list):
            self.report(node, path, "wrong-shape", f"{_shown(node.value)} where a list is needed", _dash(node))
            return
        for index, item in enumerate(node.value):
            if item.value is None and isinstance(shape.item, Scalar):
                self.report(item, (*path, index), "wrong-shape", f"nothing where {shape.item.name} is needed")
            self.compare(item, shape.item, (*path, index))

    def _mapping(self, node: Node, shape: MapOf | Fields, path: Path) -> None:
        if not isinstance(node.value, dict):
            self.report(node, path, "wrong-shape", f"{_shown(node.value)} where a mapping is needed", _dashes(node))
            return
        for name, item in node.value.items():
            if isinstance(shape, MapOf):
                self.compare(item, shape.value, (*path, name))
            elif name in shape.known:
                self.compare(item, shape.known[name], (*path, name))
            else:
                self._unknown(item, name, shape, path)

    def _unknown(self, node: Node, name: str, shape: Fields, path: Path) -> None:
        code, advice = _nearest(name, shape.known)
        spec = self.whole.known.get("spec") if self.whole else None
        if code == "unknown-field" and len(path) <= 1 and isinstance(spec, Fields) and name in spec.known:
            advice = f"it belongs below 'spec': check the lines and indentation around {path_text(path) or 'it'}"
        if code == "wrong-case" or not shape.open:
            self.report(node, (*path, name), code, f"unknown field {name!r}", advice)


def _dash(node: Node) -> str:
    return "start each item with '- '" if isinstance(node.value, dict) else "write it as an item: '- …'"


def _dashes(node: Node) -> str:
    return "remove the '- '" if isinstance(node.value, list) else "check the indentation"


def _nearest(name: str, known: Iterable[str]) -> tuple[str, str]:
    """The code and the advice for a name that is not known."""
    names = sorted(known)
    same = [each for each in names if each.lower() == name.lower()]
    if same:
        return "wrong-case", f"write {same[0]!r}: names count with their case"
    close = difflib.get_close_matches(name, names, n=1)
    return "unknown-field", f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(names)}"
