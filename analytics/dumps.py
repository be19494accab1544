"""Text that holds Kubernetes objects, JSON or YAML, to the objects in it.

Rule: several documents may follow each other; what is no object is an error with its place, not a guess.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from analytics.store import StoreError

_REMEDY = "make it with `kubectl get pods,nodes,services,namespaces -A -o json`"
_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_LOADER):  # type: ignore[misc]
    """YAML as Kubernetes reads it: a time is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _LOADER.yaml_implicit_resolvers.items()
}


def read(source: str) -> list[Mapping[str, Any]]:
    """The documents in a file, or on standard input for `-`; raises StoreError where they cannot be read."""
    name = "standard input" if source == "-" else source
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise StoreError(name, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise StoreError(name, f"is not UTF-8 text (byte {error.start})", "save it as UTF-8") from error
    return documents(text, name)


def documents(text: str, name: str) -> list[Mapping[str, Any]]:
    """The documents of a text; `name` is for the error: StoreError where one is neither JSON nor YAML, or no object."""
    try:
        found = list(_json(text) if text.lstrip().startswith(("{", "[")) else yaml.load_all(text, _Loader))
    except json.JSONDecodeError as error:
        raise StoreError(f"{name}:{error.lineno}", f"not JSON: {error.msg}", _REMEDY) from error
    except yaml.YAMLError as error:
        place = f":{mark.line + 1}" if (mark := getattr(error, "problem_mark", None)) else ""
        raise StoreError(f"{name}{place}", "neither JSON nor YAML of Kubernetes objects", _REMEDY) from error
    except RecursionError:
        raise StoreError(name, "is nested too deep") from None
    kept = [each for document in found for each in (document if isinstance(document, list) else [document]) if each]
    for document in kept:
        if not (isinstance(document, Mapping) and document.get("kind") and document.get("apiVersion")):
            raise StoreError(name, "holds no Kubernetes object", _REMEDY)
        if document["kind"] == "Status":
            raise StoreError(name, f"holds an answer of the API server, not objects: {document.get('message', '')}")
    if not kept:
        raise StoreError(name, "is empty", _REMEDY)
    return kept


def _json(text: str) -> Iterator[Any]:
    """JSON documents one after the other, as `kubectl get --watch -o json` writes them."""
    decoder, place = json.JSONDecoder(), 0
    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        document, place = decoder.raw_decode(text, place)
        yield document
