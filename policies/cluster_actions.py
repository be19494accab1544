"""What `apply`, `diff` and `prune` do to the Log policies of a cluster.

Rule: nothing is applied whose proof does not hold against the policies that the cluster has now; only objects with our
label are changed or deleted, and only as they were read; a dry run is made by the server, which then persists nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from policies.actions import Exit, Result
from policies.cluster_set import Difference, Key, State, differences, expiring, expiry, is_ours, key_of, unified
from policies.cluster_source import LiveCluster
from policies.emit import log_object
from policies.errors import ClusterError, PolicyError
from policies.generate import Options, generate
from policies.kube import Cluster
from policies.load import assembled, find
from policies.log_actions import EBPF, inventory_of
from policies.model import Inventory
from policies.pairing import MANAGED_BY
from policies.pairing import is_ours as is_made
from policies.render import Data
from policies.resources import SERVED, WRITES, Resource
from policies.verify import verify
from policies.written import Written

_OF_ONE_OBJECT = (400, 409, 422)
"""Refusals that are about one object: the others go on. Anything else would be said of each."""

_NO_API = "install Calico's API server, or pipe 'denylog policies generate --cluster' into 'calicoctl apply -f -'"
_DRY = "dry run: nothing was changed; --no-dry-run does it"
_ALONE = "a Log policy left alone cuts its pods off: when you delete a policy, delete its Log policy first, or prune"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The objects that should be there, with the proof in words; or why there may be none."""

    objects: tuple[Data, ...]
    notes: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()

    def refused(self) -> Result:
        """What is said instead of doing anything."""
        return Result("", (*(f"refused: {reason}" for reason in self.refusals), *self.notes), Exit.FINDINGS)


def _wanted(live: LiveCluster, files: Sequence[str], options: Options) -> _Wanted:
    """The Log policies of the files, or those generated for the cluster, proved against what the cluster has."""
    if live.calico().dataplane == "ebpf":
        return _Wanted((), refusals=(EBPF,))
    found = inventory_of([replace(live, pods=False)])
    inventory = replace(found, policies=tuple(policy for policy in found.policies if not is_made(policy)))
    if files:
        return _given(files, inventory)
    plan = generate(inventory, options)
    return _Wanted(tuple(map(log_object, plan.made)), (*plan.notes, str(plan.proof)), plan.refusals)


def _given(files: Sequence[str], inventory: Inventory) -> _Wanted:
    found = find(files)
    loaded = assembled(found)
    advice = "apply only what 'denylog policies generate' has printed"
    foreign = [
        written.problem("not-ours", (), f"{written.kind.name} {written.name} is no Log policy of denylog", advice)
        for written in found.objects
        if not is_ours(written.document) or (written.kind.group, written.kind.name) not in _WRITTEN
    ]
    if problems := (*loaded.problems, *foreign):
        raise PolicyError(problems)
    proof = verify(inventory, loaded.inventory.policies, most=3)
    refusals = () if proof.holds else tuple(str(proof).splitlines())
    return _Wanted(tuple(map(_object, found.objects)), (str(proof),) if proof.holds else (), refusals)


_WRITTEN = {(resource.group, resource.kind): resource for resource in WRITES}


def _object(written: Written) -> Data:
    """What was written, with its namespace and without what a server manages."""
    metadata = {key: value for key, value in written.metadata.items() if key in ("name", "labels", "annotations")}
    if written.namespace:
        metadata["namespace"] = written.namespace
    return {key: written.document[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": metadata}


def _resource(found: Data) -> Resource:
    return _WRITTEN[SERVED, found["kind"]]


def _there(cluster: Cluster, labels: str = "") -> list[Data]:
    """The policies that `apply` could meet. Raises ClusterError where the cluster has no API for them."""
    served = cluster.served(WRITES)
    if not served:
        raise ClusterError(f"cluster {cluster.name}", f"serves no {WRITES[0].api_version}", _NO_API)
    return [each for resource in served for each in cluster.list(resource, labels)]


# -- apply -----------------------------------------------------------------------------------------------------------


def apply_policies(
    live: LiveCluster, files: Sequence[str], options: Options, *, ttl: timedelta | None, dry_run: bool, force: bool
) -> Result:
    """Apply what was generated, or the files, to the cluster."""
    wanted = _wanted(live, files, options)
    if wanted.refusals:
        return wanted.refused()
    until = datetime.now(UTC) + ttl if ttl else None
    with live.connect() as cluster:
        found = differences(_there(cluster), wanted.objects)
        if foreign := [each for each in found if each.state is State.FOREIGN]:
            return _Wanted((), (), tuple(map(_in_the_way, foreign))).refused()
        steps = [_Step(*_applying(cluster, each, until, dry_run, force)) for each in found if each.wanted]
        result = _performed(steps, dry_run)
    stale = sum(each.state is State.DELETE for each in found)
    notes = (
        [f"{stale} Log policies of denylog are not among these: 'denylog policies prune' deletes them"] if stale else []
    )
    if result.text:
        when = f"they expire at {until:%Y-%m-%d %H:%M} UTC: 'denylog policies prune' then deletes them" if until else ""
        notes += [*filter(None, (when, "" if dry_run else _ALONE))]
    return replace(result, notes=(*wanted.notes, *result.notes, *notes))


def _in_the_way(each: Difference) -> str:
    return f"{each} is in the cluster and is not denylog's; delete it, or choose another --name"


_DONE = {State.CREATE: "created", State.CHANGE: "changed", State.SAME: "unchanged"}


def _applying(
    cluster: Cluster, each: Difference, until: datetime | None, dry_run: bool, force: bool
) -> tuple[str, str, Callable[[], object]]:
    """What to say, and what to do: one object is applied, only over the version that was read."""
    wanted, live = expiring(each.wanted or {}, until), each.live
    if live is not None:
        version = live["metadata"].get("resourceVersion")
        wanted = wanted | {
            "metadata": wanted["metadata"] | {"name": live["metadata"]["name"], "resourceVersion": version}
        }
        return (
            _DONE[each.state],
            str(each),
            lambda: cluster.apply(_resource(wanted), wanted, dry_run=dry_run, force=force),
        )
    return _DONE[each.state], str(each), lambda: _create(cluster, wanted, dry_run)


def _create(cluster: Cluster, wanted: Data, dry_run: bool) -> None:
    """Calico's API server of 3.32.0 cannot create by applying (projectcalico/calico issue 12841): it says 404.

    The second request there makes the fields those of an applier, so that later ones meet no conflict with ourselves.
    """
    resource = _resource(wanted)
    try:
        cluster.apply(resource, wanted, dry_run=dry_run)
    except ClusterError as error:
        if error.code != 404:
            raise
        cluster.create(resource, wanted, dry_run=dry_run)
        if not dry_run:
            cluster.apply(resource, wanted, dry_run=False, force=True)


# -- diff and prune --------------------------------------------------------------------------------------------------


def diff_policies(live: LiveCluster, files: Sequence[str], options: Options) -> Result:
    """What `apply` and `prune` would change, as a unified diff."""
    wanted = _wanted(live, files, options)
    if wanted.refusals:
        return wanted.refused()
    with live.connect() as cluster:
        found = differences(_there(cluster), wanted.objects)
    text = unified(found)
    return Result(text, wanted.notes, Exit.FINDINGS if text else Exit.OK)


def prune_policies(live: LiveCluster, options: Options, *, expired_only: bool, dry_run: bool) -> Result:
    """Delete Log policies of ours that have expired or that would no longer be generated."""
    wanted = _Wanted(()) if expired_only else _wanted(live, (), options)
    known = None if expired_only or wanted.refusals else frozenset(map(key_of, wanted.objects))
    with live.connect() as cluster:
        ours = [each for each in _there(cluster, _LABEL) if is_ours(each)]
        steps, notes = [], []
        for each in ours:
            try:
                reason = _reason(each, known)
            except ValueError as error:
                notes.append(f"{_called(each)}: its expiry cannot be read ({error}), so it is taken to have none")
                continue
            if reason:
                steps.append(_Step("deleted", f"{_called(each)} ({reason})", _deleting(cluster, each, dry_run)))
        result = _performed(steps, dry_run)
    if not steps:
        notes += [_nothing(len(ours), expired_only=known is None)]
    if wanted.refusals:
        notes += ["only expired ones were looked for, since nothing can be generated:", *wanted.refusals]
        result = replace(result, exit=max(result.exit, Exit.FINDINGS))
    return replace(result, notes=(*result.notes, *notes))


def _nothing(ours: int, *, expired_only: bool) -> str:
    """Why nothing is deleted."""
    if not ours:
        return "nothing to delete: the cluster has no Log policy of denylog"
    why = "has expired" if expired_only else "has expired or would no longer be generated"
    return f"nothing to delete: none of the {ours:,} Log policies of denylog {why}"


_LABEL = ",".join(f"{key}={value}" for key, value in MANAGED_BY.items())


def _called(found: Data) -> str:
    return str(Difference(key_of(found), found, None))


def _reason(found: Data, known: frozenset[Key] | None) -> str:
    """Why to delete it, "" to keep it. Raises ValueError for an expiry that cannot be read."""
    if known is not None and key_of(found) not in known:
        return "no longer generated"
    until = expiry(found)
    return f"expired at {until:%Y-%m-%d %H:%M} UTC" if until and until <= datetime.now(UTC) else ""


def _deleting(cluster: Cluster, found: Data, dry_run: bool) -> Callable[[], object]:
    return lambda: cluster.delete(_resource(found), found, dry_run=dry_run)


# -- doing it --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Step:
    """One request: what it does, to which object, and the request."""

    done: str
    what: str
    perform: Callable[[], object]


def _performed(steps: Iterable[_Step], dry_run: bool) -> Result:
    """Each step in turn; what failed is told, and so is all that was done before."""
    suffix = " (dry run)" if dry_run else ""
    lines, failures, worst = [], list[str](), Exit.OK
    for step in steps:
        try:
            step.perform()
        except ClusterError as error:
            failures.append(f"{step.what}: {error}{_takeover(error)}")
            worst = max(worst, _exit(error))
            if error.code not in _OF_ONE_OBJECT:
                break
        else:
            lines.append(f"{step.done} {step.what}{suffix}\n")
    return Result("".join(lines), (*failures, *([_DRY] if dry_run and lines else ())), worst)


def _takeover(error: ClusterError) -> str:
    owned = error.code == 409 and "conflict with" in error.what
    return "; --force-conflicts takes the field over" if owned else ""


def _exit(error: ClusterError) -> Exit:
    if error.code in _OF_ONE_OBJECT:
        return Exit.FINDINGS
    return Exit.TRY_AGAIN if error.retryable else Exit.BAD_INPUT
