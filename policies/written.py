"""One object as it was written: its kind, its tree with positions, and the plain document.

Rule: whoever reads a field can say where it stands. Reading through `Written` never fails on a missing field; shapes
were checked before (`policies.shapes`), so a value that is there has the type its table says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from policies.document import Node
from policies.errors import PathStep, Problem, path_text
from policies.fields import Kind
from policies.model import Labels, Place, Source

Document: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Written:
    """An object of a known kind; `document` is the plain form of `node`."""

    file: str
    kind: Kind
    api_version: str
    node: Node
    document: Document

    def place(self, *path: PathStep) -> Place:
        """Where the field at `path` is written, or the nearest thing around it."""
        return Place(self.file, *self.node.at(path).key)

    def problem(self, code: str, path: tuple[PathStep, ...], message: str, advice: str = "") -> Problem:
        """A finding about the field at `path`."""
        return Problem(code, Place(self.file, *self.node.at(path).position), path_text(path), message, advice)

    @property
    def source(self) -> Source:
        return Source(Place(self.file, *self.node.position), self.api_version, self.kind.name, self.document)

    @property
    def metadata(self) -> Document:
        return mapping(self.document, "metadata")

    @property
    def spec(self) -> Document:
        return mapping(self.document, "spec")

    @property
    def name(self) -> str:
        return text(self.metadata, "name")

    @property
    def namespace(self) -> str | None:
        """Of a namespaced kind: as written, or `default` as calicoctl and kubectl assume."""
        return text(self.metadata, "namespace") or "default" if self.kind.namespaced else None


def mapping(document: Document, name: str) -> Document:
    """A mapping field; empty where it is absent or null."""
    return document.get(name) or {}


def items(document: Document, name: str) -> list[Any]:
    """A list field; empty where it is absent or null, `{}` for a null item of it."""
    return [{} if item is None else item for item in document.get(name) or []]


def text(document: Document, name: str) -> str:
    """A text field; empty where it is absent or null."""
    return document.get(name) or ""


def labels(document: Document, name: str) -> Labels:
    """A mapping of text; a null value is empty text, as in Go."""
    return {key: value or "" for key, value in mapping(document, name).items()}
