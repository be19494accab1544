"""Files, folders, standard input and clusters to an inventory.

Rule: every object ends as a record, a problem with file, line and column, or a named kind that has nothing to do with
policies (`Loaded.skipped`); none disappears. One bad object does not stop the others.
"""

from __future__ import annotations

import difflib
import itertools
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

from policies import build, convert
from policies.document import Node, nodes, tree
from policies.errors import PolicyError, Problem, SelectorError
from policies.fields import CALICO, KINDS, STORED, Kind
from policies.model import (
    HostEndpoint,
    Inventory,
    Namespace,
    NetworkSet,
    Place,
    Pod,
    Policy,
    Service,
    ServiceAccount,
    Tier,
)
from policies.scope import excluded_term, peer_term, policy_term
from policies.shapes import Check
from policies.written import Written

Record = TypeVar("Record")

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
"""Files that are read from a folder; a file that is named is read whatever it is called."""
VERSIONS: Mapping[str, tuple[str, ...]] = {
    CALICO: ("v3",),
    STORED: ("v1",),
    "networking.k8s.io": ("v1",),
    "policy.networking.k8s.io": ("v1alpha1", "v1alpha2"),
    "": ("v1",),
}
_CONVERTED = frozenset({"networking.k8s.io", "policy.networking.k8s.io"})


@dataclass(frozen=True, slots=True)
class Found:
    """The objects of a load as they were written, with what could not be read and what was passed over (by kind).

    `misshapen` are objects of known kinds with a shape problem: nothing is built from them, but they may be looked at.
    """

    objects: tuple[Written, ...]
    misshapen: tuple[Written, ...]
    problems: tuple[Problem, ...]
    skipped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Loaded:
    """An inventory, what is wrong with the rest, and what was passed over (objects by kind)."""

    inventory: Inventory
    problems: tuple[Problem, ...]
    skipped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Calico:
    """What a cluster says about its Calico: release ("" where it does not say) and data plane."""

    version: str
    dataplane: str


class Live(Protocol):
    """A source that is no text: a cluster (`policies.cluster_source`). Its methods raise ClusterError."""

    def objects(self) -> Iterable[tuple[str, Mapping[str, object]]]:
        """Its plain objects, each with what stands for the file in what is said about it."""

    def calico(self) -> Calico:
        """Which Calico it runs."""


Source: TypeAlias = str | Live


def load(sources: Iterable[Source]) -> Loaded:
    """Everything that files, folders, `-` or clusters hold. Raises PolicyError where a source cannot be read at all."""
    return assembled(find(sources))


def find(sources: Iterable[Source]) -> Found:
    """The objects as written, their shape checked. Raises PolicyError where a source cannot be read at all."""
    return _found(itertools.chain.from_iterable(map(_documents, sources)))


def found_in(texts: Iterable[tuple[str, str]]) -> Found:
    """Like `find`, for pairs of a file name and its text."""
    return _found((file, nodes(text, file)) for file, text in texts)


def found_as(plain: Iterable[Mapping[str, object]], name: str) -> Found:
    """Like `find`, for plain objects, as a store keeps them; `name` stands for the file in what is said about them."""
    return _found([(name, map(tree, plain))])


def _documents(source: Source) -> Iterable[tuple[str, Iterable[Node]]]:
    if isinstance(source, str):
        return ((file, nodes(text, file)) for file, text in _texts([source]))
    return ((name, [tree(plain)]) for name, plain in source.objects())


def _found(documents: Iterable[tuple[str, Iterable[Node]]]) -> Found:
    objects: list[Written] = []
    misshapen: list[Written] = []
    problems: list[Problem] = []
    skipped: Counter[str] = Counter()
    for file, read in documents:
        finder = _Finder(file, objects, misshapen, problems, skipped)
        try:
            for document in read:
                finder.take(document)
        except PolicyError as error:
            problems.extend(error.problems)
    return Found(tuple(objects), tuple(misshapen), tuple(problems), dict(sorted(skipped.items())))


def assembled(found: Found) -> Loaded:
    """The model of what was found."""
    records, problems = built(found)
    kept = list(once(records, problems))
    return Loaded(inventory(kept), tuple(problems), found.skipped)


def built(found: Found) -> tuple[list[object], list[Problem]]:
    """The record of each object, and everything that is wrong."""
    records: list[object] = []
    problems = list(found.problems)
    for written in found.objects:
        try:
            records.append(record(written))
        except PolicyError as error:
            problems.extend(error.problems)
    return records, problems


def once(records: Iterable[object], problems: list[Problem]) -> Iterator[object]:
    """Each policy and tier once. Of two that differ a cluster has only one, and nobody can tell which: a problem."""
    seen: dict[tuple[object, ...], Policy | Tier] = {}
    for each in records:
        if not isinstance(each, Policy | Tier):
            yield each
            continue
        key = (each.kind, each.namespace, each.name) if isinstance(each, Policy) else (Tier, each.name)
        first = seen.setdefault(key, each)
        if first is each:
            yield each
        elif enforced_part(first) != enforced_part(each) and first.source and each.source:
            what = each if isinstance(each, Policy) else f"Tier {each.name}"
            message = f"{what} is written twice, and otherwise at {first.source.place}"
            problems.append(Problem("twice", each.source.place, "", message, "leave out the one that is not in force"))


def enforced_part(each: Policy | Tier) -> Policy | Tier:
    """What of it decides about packets."""
    return replace(each, uid="", labels={}, annotations={}) if isinstance(each, Policy) else each


def record(written: Written) -> object:
    """The record of one object. Raises PolicyError."""
    if written.kind.name in build.BUILDERS:
        return build.BUILDERS[written.kind.name](written)
    if not is_kubernetes(written):
        return build.policy(written)
    try:
        policy = convert.served(written)
    except ValueError as error:
        raise PolicyError([written.problem("uid", ("metadata", "uid"), str(error))]) from error
    if policy is None:
        advice = "give it tier Admin or Baseline and a subject of namespaces or pods"
        raise PolicyError([written.problem("no-subject", ("spec",), "Calico makes no policy of this", advice)])
    return policy


def selector_problem(policy: Policy) -> Problem | None:
    """The first selector of a policy that cannot be read; with the policy, since a dump holds thousands."""
    rules = (*policy.ingress, *policy.egress)
    try:
        policy_term(policy)
        for end in itertools.chain.from_iterable((rule.source, rule.destination) for rule in rules):
            peer_term(end, policy.namespace)
            excluded_term(end)
    except SelectorError as error:
        place = policy.source.place if policy.source else Place("")
        return Problem("selector", place, "", f"{policy}: {error}", "")
    return None


def is_kubernetes(written: Written) -> bool:
    """Whether the object is a policy that Calico converts before it evaluates it."""
    return written.kind.group in _CONVERTED or written.kind.name == "StagedKubernetesNetworkPolicy"


def inventory(records: Iterable[object]) -> Inventory:
    """Records of any kind, sorted by what they are."""
    records = tuple(records)

    def of(kind: type[Record]) -> tuple[Record, ...]:
        return tuple(each for each in records if isinstance(each, kind))

    return Inventory(
        policies=of(Policy),
        tiers=of(Tier),
        pods=of(Pod),
        host_endpoints=of(HostEndpoint),
        network_sets=of(NetworkSet),
        namespaces=of(Namespace),
        service_accounts=of(ServiceAccount),
        services=of(Service),
    )


# -- sources ---------------------------------------------------------------------------------------------------------


def _texts(sources: Iterable[str]) -> Iterator[tuple[str, str]]:
    for source in sources:
        for name in [source] if source == "-" else _files(Path(source)):
            yield str(name), read_text(str(name))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(each for each in path.rglob("*") if each.suffix in SUFFIXES and each.is_file())
    if not files:
        raise PolicyError([Problem("no-file", Place(str(path)), "", "no .yaml, .yml or .json file in this folder")])
    return files


def read_text(source: str) -> str:
    """The text of a file, or of standard input for `-`. Raises PolicyError."""
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise PolicyError([Problem("no-file", Place(source), "", f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        sentence = f"not UTF-8 text: byte 0x{data[error.start]:02x} at offset {error.start}"
        raise PolicyError([Problem("syntax", Place(source), "", sentence, "save it as UTF-8")]) from error


# -- objects ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Finder:
    """Takes the documents of one file apart into objects of known kinds."""

    file: str
    objects: list[Written]
    misshapen: list[Written]
    problems: list[Problem]
    skipped: Counter[str]

    def take(self, node: Node, inherited: tuple[str, str] = ("", "")) -> None:
        """A document: one object, a bare list of objects, or a `…List` with items."""
        if isinstance(node.value, list):
            for item in node.value:
                self.take(item, inherited)
        elif not isinstance(node.value, dict):
            self._problem(node, "not-an-object", "no object: a mapping with 'apiVersion' and 'kind' is needed")
        else:
            self._object(node, node.value, inherited)

    def _object(self, node: Node, fields: dict[str, Node], inherited: tuple[str, str]) -> None:
        version, kind = (
            self._header(fields, name, default) for name, default in zip(("apiVersion", "kind"), inherited, strict=True)
        )
        if not kind or not version:
            missing = "kind" if not kind else "apiVersion"
            self._problem(node, "no-kind", f"no {missing!r}", _near_field(missing, fields))
        elif kind.endswith("List") and isinstance(fields.get("items", node).value, list):
            self.take(fields["items"], ("", "") if kind == "List" else (version, kind.removesuffix("List")))
        else:
            self._known(node, fields, version, kind)

    def _header(self, fields: dict[str, Node], name: str, default: str) -> str:
        value = fields[name].value if name in fields else default
        return value if isinstance(value, str) else ""

    def _known(self, node: Node, fields: dict[str, Node], version: str, name: str) -> None:
        group, _, number = version.rpartition("/")
        kind = KINDS.get((group, name))
        if kind is None:
            self._unknown(node.at(("kind",)), group, version, name)
        elif number not in VERSIONS[group]:
            wanted = " or ".join(f"{group}/{each}".lstrip("/") for each in VERSIONS[group])
            self._problem(
                node.at(("apiVersion",)), "api-version", f"apiVersion {version!r} is not read", f"use {wanted}"
            )
        else:
            self._checked(node, kind, version)

    def _unknown(self, node: Node, group: str, version: str, name: str) -> None:
        close = _nearest_kind(group, name)
        if close is None:
            self.skipped[f"{version} {name}"] += 1
            return
        wanted = f"{close.group}/{VERSIONS[close.group][-1]}".lstrip("/")
        advice = f"did you mean kind {close.name!r} with apiVersion {wanted!r}?"
        self._problem(node, "unknown-kind", f"unknown kind {name!r} with apiVersion {version!r}", advice)

    def _checked(self, node: Node, kind: Kind, version: str) -> None:
        before = len(self.problems)
        Check(self.file, self.problems).compare(node, kind.shape)
        name = node.at(("metadata", "name"))
        if len(self.problems) == before and not (isinstance(name.value, str) and name.value):
            self._problem(name, "no-name", f"this {kind.name} has no metadata.name", "give it a name")
        target = self.objects if len(self.problems) == before else self.misshapen
        target.append(Written(self.file, kind, version, node, node.plain()))

    def _problem(self, node: Node, code: str, message: str, advice: str = "") -> None:
        self.problems.append(Problem(code, Place(self.file, *node.position), "", message, advice))


def _near_field(missing: str, fields: Iterable[str]) -> str:
    wrong = next((name for name in fields if name.lower() == missing.lower()), None)
    if wrong == missing:
        return "its value must be text: put it in quotes, or write what was meant"
    return f"write {missing!r} instead of {wrong!r}: names count with their case" if wrong else "every object has one"


def _nearest_kind(group: str, name: str) -> Kind | None:
    """The kind that was probably meant: its name with a slip, or under the wrong group; None for others' kinds."""
    kinds = list(KINDS.values())
    names = {kind.name.lower() for kind in kinds if kind.group in (group, CALICO, "networking.k8s.io") or kind.group}
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.9)
    same = [kind for kind in kinds if close and kind.name.lower() == close[0]]
    return next((kind for kind in same if kind.group == group), same[0] if same else None)
