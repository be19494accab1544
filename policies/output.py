"""Objects and findings as text for people and programs.

Rule: YAML that is read back by Kubernetes' YAML library is the same data: text that it would take for a number, a
boolean or null is quoted (`y`, `1e3`, `0o17`, which PyYAML alone would leave bare), and no line is folded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import yaml

from policies.document import scalar
from policies.errors import Problem
from policies.render import Data, documents

_BREAKS = re.compile("[\\x85\\u2028\\u2029\\ufeff]")
"""Line breaks of YAML 1.1 beyond the newline: only double quotes keep them."""


class _Dumper(yaml.SafeDumper):
    """Writes each text so that go-yaml reads text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(scalar(text), str) else "'"
    if _BREAKS.search(text):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def as_yaml(objects: Iterable[Data]) -> str:
    """One document for each object, as `calicoctl apply -f` and `kubectl apply -f` take them."""
    dumped = (yaml.dump(each, Dumper=_Dumper, sort_keys=False, width=2**31, allow_unicode=True) for each in objects)
    return "---\n".join(dumped)


def as_json(objects: Iterable[Data]) -> str:
    """The bare object where there is one, else a `v1 List`."""
    return json.dumps(documents(objects), indent=2, ensure_ascii=False) + "\n"


def problem_data(problem: Problem) -> Data:
    """A finding as plain data: code, file, line and column (0 where unknown), path, message, advice."""
    place = problem.place
    return {
        "code": problem.code,
        "file": place.file,
        "line": place.line,
        "column": place.column,
        "path": problem.path,
        "message": problem.message,
        "advice": problem.advice,
    }
