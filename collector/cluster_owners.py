"""Who made the ReplicaSets and Jobs that make pods: asked of the cluster, so that no name has to be taken apart.

Rule: this is for better names only: a cluster that does not let one look costs one sentence, and names are read off
those of the pods. Only metadata is asked for: all of it before the pods are listed, then single objects that are new.
Nothing is watched, since an object has its owner from its beginning.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from analytics.kinds import identity, maker_of
from policies.errors import ClusterError
from policies.kube import Cluster
from policies.resources import OWNERS, Resource

_LOG = logging.getLogger(__name__)

_MOST = 50_000
"""ReplicaSets and Jobs that are remembered, some 30 MB; of more the oldest are asked for again when needed."""
_AT_ONCE = 20
"""New ones that are asked for to name a page of pods: those made since they were listed, which are few."""
_REFUSED, _ABSENT = 403, 404
_BY_KIND = {resource.kind: resource for resource in OWNERS}

Object: TypeAlias = Mapping[str, Any]
Key: TypeAlias = tuple[str, str, str]


class Owners:
    """What is known of the owners of a cluster's pods; for the one thread that follows its pods."""

    def __init__(self) -> None:
        self._known: dict[Key, Object | None] = {}
        self._refused: dict[Resource, ClusterError] = {}
        self._told = False

    def learn(self, cluster: Cluster, *, cached: bool) -> None:
        """List all that there are, in place of what was known. Raises ClusterError for what waiting mends."""
        self._known.clear()
        self._refused.clear()
        for resource in OWNERS:
            with self._if_allowed(resource):
                for page in cluster.pages(resource, cached=cached, metadata_only=True):
                    for each in page.objects:
                        self._keep(identity(each), each)
        self._tell()

    def of(self, cluster: Cluster, pods: Iterable[Object]) -> list[Object]:
        """The ReplicaSets and Jobs that made these pods, as far as they can be had. Raises ClusterError as `learn`."""
        makers = dict.fromkeys(key for pod in pods if (key := _maker(pod)))
        new = [key for key in makers if key not in self._known]
        for key in new if len(new) <= _AT_ONCE else ():
            self._ask(cluster, *key)
        return [found for key in makers if (found := self._known.get(key))]

    def _ask(self, cluster: Cluster, kind: str, namespace: str, name: str) -> None:
        resource = _BY_KIND[kind]
        if resource in self._refused:
            return
        with self._if_allowed(resource):
            self._keep((kind, namespace, name), cluster.get(resource, namespace, name, metadata_only=True))
        self._tell()

    def _keep(self, key: Key, found: Object | None) -> None:
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known[key] = found and _pared(found)

    @contextmanager
    def _if_allowed(self, resource: Resource) -> Iterator[None]:
        """Remember that it is not; a cluster that serves no such thing has none."""
        try:
            yield
        except ClusterError as error:
            if error.code not in (_REFUSED, _ABSENT):
                raise
            self._refused[resource] = error

    def _tell(self) -> None:
        """Say once what is not allowed."""
        refused = {resource: error for resource, error in self._refused.items() if error.code == _REFUSED}
        if refused and not self._told:
            self._told = True
            where, names = next(iter(refused.values())).where, " and ".join(map(str, refused))
            advice = "ask for the verbs get and list"
            _LOG.warning("%s: no right to read %s, so pods' names tell their workloads; %s", where, names, advice)


def _maker(pod: Object) -> Key | None:
    """None also for a pod that is not as Kubernetes writes it, which is told where it becomes a row."""
    try:
        return maker_of(pod)
    except (AttributeError, TypeError, KeyError):
        return None


def _pared(found: Object) -> Object:
    metadata = found["metadata"]
    kept = {key: metadata[key] for key in ("name", "namespace", "uid", "ownerReferences") if metadata.get(key)}
    return {"apiVersion": found["apiVersion"], "kind": found["kind"], "metadata": kept}
