"""What is wrong with a policy, where, and what to do next.

Rule: one bad object never hides the others. Checks hand out `Problem` values; only callers that cannot go on raise
them, bundled in one `PolicyError`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from policies.model import Place

PathStep = str | int


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding about one written field.

    `code` is a stable short name (`unknown-field`), `path` the field as in `spec.ingress[0].from`, `message` what is
    wrong, `advice` what it would really do or what to write instead ("" where the message says it all).
    """

    code: str
    place: Place
    path: str
    message: str
    advice: str = ""

    def __str__(self) -> str:
        where = f"{self.place}: {self.path}" if self.path else str(self.place)
        return f"{where}: {self.message}{'; ' + self.advice if self.advice else ''}"


class PolicyError(Exception):
    """Input that cannot be used; `problems` says what, where and what to do next, in the order of the files."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class SelectorError(PolicyError):
    """A selector that Calico would not parse: the text, what is wrong and the column from 1."""

    def __init__(self, text: str, reason: str, column: int) -> None:
        self.text, self.reason, self.column = text, reason, column
        super().__init__([Problem("selector", Place("selector", 1, column), "", str(self))])

    def __str__(self) -> str:
        shown = self.text if len(self.text) <= _SHOWN else self.text[:_SHOWN] + "…"
        return f"invalid selector {shown!r} at column {self.column}: {self.reason}"


_SHOWN = 1024
"""Characters of a selector that a message repeats: as many as Calico allows one to have."""


class ClusterError(PolicyError):
    """A cluster that does not do what was asked: `where` it is, `what` it said, what to `do` next.

    `code` is the HTTP status (0 where there was no answer); `retryable`: trying again later may help.
    """

    def __init__(self, where: str, what: str, do: str = "", *, code: int = 0, retryable: bool = False) -> None:
        self.where, self.what, self.do, self.code, self.retryable = where, what, do, code, retryable
        super().__init__([Problem("cluster", Place(where), "", what, do)])


def path_text(path: Iterable[PathStep]) -> str:
    """A path for people: `("spec", "ingress", 0)` is `spec.ingress[0]`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")
