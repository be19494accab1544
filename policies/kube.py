"""A live cluster: the connection, and plain requests for what `policies.resources` lists.

Rule: whatever goes wrong is a ClusterError with what to do next, and nothing waits without end. lightkube knows how to
connect and to sign in (TLS, tokens that rotate, exec plugins). The requests are written out here, since its own client
asks for no bookmarks, bounds no watch and deletes without preconditions.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

import httpx2
import msgspec
import yaml
from lightkube.config import client_adapter
from lightkube.config.kubeconfig import DEFAULT_KUBECONFIG, KubeConfig, SingleConfig
from lightkube.config.models import User
from lightkube.core.exceptions import ConfigError

from policies.answers import REACH, failed, is_busy, pause, refused, unreachable, words
from policies.errors import ClusterError
from policies.resources import READS as READS
from policies.resources import SERVED, STORED, Resource
from policies.resources import WRITES as WRITES
from policies.streamed import Streamed

Data: TypeAlias = dict[str, Any]

CONNECT_S = 10.0
ANSWER_S = 30.0
"""How long an API server may keep silent within one answer; kube-apiserver ends its own work after 60 s."""
WATCH_S = (200, 290)
"""After a time between these the server ends a watch, and the next one begins where it ended: of the watches that began
together (a rollout, a restart of the API server) not all begin anew together."""
SILENCE_S = 330.0
"""A watch that is silent for longer than the server would let it last has lost its connection."""
PAGE = 500
"""Objects in one page of a list, as kubectl asks for."""
_PLAIN = "application/json"
_METADATA = {each: f"{_PLAIN};as=PartialObjectMetadata{each};g=meta.k8s.io;v=v1,{_PLAIN}" for each in ("", "List")}
"""What to accept for nothing but an object's metadata, or those of a list; a server without that sends all of it."""
ATTEMPTS = 5
"""How often a busy server (429, 503 with Retry-After) is asked."""
GONE = 410
"""The code of what has expired: a version to watch from, a page of a list."""
MANAGER = "denylog"
"""The field manager of everything that is applied."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some objects of a list; the last one has the version of the whole list, from which a watch goes on."""

    objects: tuple[Data, ...]
    version: str


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a watch: ADDED, MODIFIED, DELETED or BOOKMARK, and the version from which to go on after it."""

    type: str
    object: Data
    version: str


# -- the cluster ------------------------------------------------------------------------------------------------------


class Cluster:
    """Requests to one API server; a context manager. Every method raises ClusterError."""

    def __init__(self, config: SingleConfig) -> None:
        self.name = config.context_name
        self.server = config.cluster.server
        timeout = httpx2.Timeout(ANSWER_S, connect=CONNECT_S)
        with self._told():
            self._client = client_adapter.Client(config, client_adapter.ConnectionParams(timeout=timeout))
        self._streams: set[socket.socket] = set()

    @classmethod
    def connect(cls, context: str | None = None, kubeconfig: str | None = None) -> Self:
        """The cluster that kubectl would talk to, or the one around this pod. Nothing is sent yet."""
        return cls(_configuration(context, kubeconfig))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def interrupt(self) -> None:
        """End the watches and lists that are open, whichever thread waits for them."""
        for each in list(self._streams):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def served(self, wanted: Iterable[Resource]) -> list[Resource]:
        """Those of the resources that the cluster has; of Calico's two groups the one that it serves."""
        known: dict[str, frozenset[str]] = {}
        found = []
        for resource in wanted:
            if resource.base not in known:
                known[resource.base] = self._plurals(resource)
            if resource.plural in known[resource.base]:
                found.append(resource)
        groups = {resource.group for resource in found}
        return [resource for resource in found if resource.group != STORED or SERVED not in groups]

    def _plurals(self, resource: Resource) -> frozenset[str]:
        answer = self._send("GET", resource.base, f"the API group {resource.api_version}", absent=True)
        return frozenset(each["name"] for each in answer.get("resources") or ()) if answer else frozenset()

    def list(self, resource: Resource, labels: str = "") -> tuple[Data, ...]:
        """All objects of the cluster; from the start again where a page has expired meanwhile."""
        for limit in (PAGE, PAGE, None):
            try:
                return tuple(each for page in self.pages(resource, labels, limit) for each in page.objects)
            except ClusterError as error:
                if error.code != GONE or limit is None:
                    raise
        raise AssertionError("the last turn returns or raises")

    def pages(
        self,
        resource: Resource,
        labels: str = "",
        limit: int | None = PAGE,
        *,
        cached: bool = False,
        metadata_only: bool = False,
    ) -> Iterator[Page]:
        """All objects of the cluster as they were at one moment. Code 410: a page has expired, begin again.

        With `cached` the server answers from its memory, which spares etcd; the moment may then be a little while ago,
        and the server may send everything at once whatever the limit: it is taken page by page all the same.
        """
        params = {"limit": limit, "labelSelector": labels or None, "resourceVersion": "0" if cached else None}
        accept = _METADATA["List"] if metadata_only else _PLAIN
        while True:
            with self._told(), self._stream(resource.path(), f"list {resource}", params, accept) as response:
                listed = Streamed(response.iter_text())
                yield from self._batches(listed, resource)
            metadata = listed.fields.get("metadata") or {}
            yield Page((), metadata.get("resourceVersion") or "")
            if not metadata.get("continue"):
                return
            params |= {"continue": metadata["continue"], "resourceVersion": None}  # the token says which version

    def _batches(self, listed: Streamed, resource: Resource) -> Iterator[Page]:
        items = (_whole(each, resource) for each in listed.items())
        while True:
            try:
                batch = tuple(itertools.islice(items, PAGE))
            except (ValueError, TypeError) as error:
                raise self._no_api() from error
            if not batch:
                return
            yield Page(batch, "")

    def get(self, resource: Resource, namespace: str | None, name: str, *, metadata_only: bool = False) -> Data | None:
        """One object, or None where there is none of that name."""
        accept = _METADATA[""] if metadata_only else _PLAIN
        found = self._send("GET", resource.path(namespace, name), f"get {resource}", absent=True, accept=accept)
        return _whole(found, resource) if found else None

    def watch(self, resource: Resource, version: str) -> Iterator[Event]:
        """Changes after a version, until the server ends the watch. Code 410: the version is too old, list again."""
        params = {"watch": "true", "resourceVersion": version, "timeoutSeconds": random.randint(*WATCH_S)}
        params["allowWatchBookmarks"] = "true"
        asked = f"watch {resource}"
        with self._told(), self._stream(resource.path(), asked, params, _PLAIN, SILENCE_S) as response:
            for line in filter(None, response.iter_lines()):
                yield self._event(self._json(line), resource, asked)

    @contextmanager
    def _stream(
        self, path: str, asked: str, params: Mapping[str, object], accept: str, silence_s: float = ANSWER_S
    ) -> Iterator[httpx2.Response]:
        """An answer that is read while it comes, and that `interrupt` ends; a busy server is asked again."""
        timeout = httpx2.Timeout(silence_s, connect=CONNECT_S)
        for attempt in range(ATTEMPTS):
            headers = {"Accept": accept}
            with self._client.stream("GET", path, params=_given(params), headers=headers, timeout=timeout) as response:
                if response.is_success:
                    connection = response.extensions["network_stream"].get_extra_info("socket")
                    self._streams.add(connection)
                    try:
                        yield response
                    finally:
                        self._streams.discard(connection)
                    return
                if not is_busy(response) or attempt == ATTEMPTS - 1:
                    response.read()
                    raise self._refused(response, asked)
            time.sleep(pause(response))

    def _event(self, event: Data, resource: Resource, asked: str) -> Event:
        found = event.get("object") or {}
        if event.get("type") == "ERROR":
            raise failed(self.name, int(found.get("code") or 0), str(found.get("message") or ""), asked)
        version = (found.get("metadata") or {}).get("resourceVersion") or ""
        return Event(str(event.get("type")), _whole(found, resource), version)

    def apply(self, resource: Resource, wanted: Data, *, dry_run: bool, force: bool = False) -> Data:
        """Server-side apply; what the object is then. Code 409: somebody else manages a field that would change."""
        metadata = wanted["metadata"]
        params = {"fieldManager": MANAGER, "force": str(force).lower(), "dryRun": _dry(dry_run)}
        path = resource.path(metadata.get("namespace"), metadata["name"])
        kind = "application/apply-patch+yaml"
        answer = self._send("PATCH", path, f"patch {resource}", params=params, body=wanted, kind=kind)
        return answer or {}

    def create(self, resource: Resource, wanted: Data, *, dry_run: bool) -> Data:
        """A new object. Code 409: there is one of that name."""
        params = {"fieldManager": MANAGER, "dryRun": _dry(dry_run)}
        path = resource.path(wanted["metadata"].get("namespace"))
        return self._send("POST", path, f"create {resource}", params=params, body=wanted) or {}

    def delete(self, resource: Resource, found: Data, *, dry_run: bool) -> None:
        """Delete exactly the object that was read. Code 409: it was changed or replaced since."""
        metadata = found["metadata"]
        conditions = {key: metadata[key] for key in ("uid", "resourceVersion") if metadata.get(key)}
        body: Data = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": conditions}
        body |= {"dryRun": ["All"]} if dry_run else {}
        path = resource.path(metadata.get("namespace"), metadata["name"])
        self._send("DELETE", path, f"delete {resource}", body=body, absent=True)

    # -- one request --------------------------------------------------------------------------------------------------

    def _send(
        self,
        method: str,
        path: str,
        asked: str,
        *,
        params: Mapping[str, object] | None = None,
        body: Data | None = None,
        kind: str = _PLAIN,
        accept: str = _PLAIN,
        absent: bool = False,
    ) -> Data | None:
        """The answer; None for a 404 where `absent` says that it may be."""
        given = _given(params or {})
        content = None if body is None else json.dumps(body)
        headers = {"Accept": accept} | ({} if body is None else {"Content-Type": kind})
        with self._told():
            for attempt in range(ATTEMPTS):
                response = self._client.request(method, path, params=given, content=content, headers=headers)
                if not is_busy(response) or attempt == ATTEMPTS - 1:
                    break
                time.sleep(pause(response))
        if absent and response.status_code == httpx2.codes.NOT_FOUND:
            return None
        if not response.is_success:
            raise self._refused(response, asked)
        return self._json(response.content)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What the client library raises, as a ClusterError: a matter of the line, or one of credentials."""
        where = f"cluster {self.name} ({self.server})"
        try:
            yield
        except httpx2.TimeoutException as error:
            raise ClusterError(where, "does not answer in time", REACH, retryable=True) from error
        except httpx2.RequestError as error:
            raise unreachable(where, error) from error
        except httpx2.InvalidURL as error:
            raise ClusterError(where, f"is no address ({error})", "correct 'server' in the kubeconfig") from error
        except RuntimeError as error:  # httpx2 says so when another thread closes the client
            raise ClusterError(where, "the connection was closed", retryable=True) from error
        except (ConfigError, OSError, KeyError, TypeError, ValueError) as error:
            what = f"cannot be asked with these credentials ({words(error)})"
            raise ClusterError(where, what, "check the user and the certificates in the kubeconfig") from error

    def _json(self, text: bytes | str) -> Data:
        """An answer; what sits in between (a proxy, a login page) may answer in its stead."""
        with suppress(ValueError):
            answer = json.loads(text)
            if isinstance(answer, dict):
                return answer
        raise self._no_api()

    def _no_api(self) -> ClusterError:
        what = "answers, but not as a Kubernetes API server does"
        return ClusterError(f"cluster {self.name} ({self.server})", what, REACH)

    def _refused(self, response: httpx2.Response, asked: str) -> ClusterError:
        return refused(self.name, response, asked)


def _whole(found: Data, resource: Resource) -> Data:
    """With its kind, which the items of a list lack, and which metadata alone do not tell."""
    return found | {"apiVersion": resource.api_version, "kind": resource.kind}


def _given(params: Mapping[str, object]) -> dict[str, str]:
    return {key: str(value) for key, value in params.items() if value is not None}


def _dry(dry_run: bool) -> str | None:
    return "All" if dry_run else None


# -- the configuration ------------------------------------------------------------------------------------------------

_LISTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "clusters": ("cluster", ("certificate-authority",)),
    "users": ("user", ("client-certificate", "client-key", "tokenFile")),
    "contexts": ("context", ()),
}
"""The lists of a kubeconfig, what an entry holds, and which fields of that are paths relative to the file."""

_EXEC = "client.authentication.k8s.io/"


def _configuration(context: str | None, kubeconfig: str | None) -> SingleConfig:
    """As kubectl chooses: --kubeconfig, KUBECONFIG (files are merged), ~/.kube/config, the account of this pod."""
    named = kubeconfig or os.environ.get("KUBECONFIG") or ""
    paths = [kubeconfig] if kubeconfig else named.split(os.pathsep)
    files = [path for path in (Path(each or DEFAULT_KUBECONFIG).expanduser() for each in paths) if path.exists()]
    where = named or DEFAULT_KUBECONFIG
    if not files and (named or context or "KUBERNETES_SERVICE_HOST" not in os.environ):
        raise ClusterError(where, "there is no kubeconfig", "name one with --kubeconfig, or log in to the cluster")
    try:
        config = _merged(files).get(context) if files else KubeConfig.from_service_account().get()
    except ConfigError as error:
        raise ClusterError(where, words(error), "'kubectl config get-contexts' lists them") from error
    except OSError as error:
        raise ClusterError(where, f"cannot be read ({error.strerror})", "name another with --kubeconfig") from error
    except (LookupError, TypeError, AttributeError, ValueError, msgspec.MsgspecError, yaml.YAMLError) as error:
        what = f"is no kubeconfig ({words(error)})"
        raise ClusterError(where, what, "'kubectl config view' shows how it should look") from error
    assert config is not None  # None is only what the caller hands over as a default
    return _usable(config)


def _merged(files: Iterable[Path]) -> KubeConfig:
    """Several kubeconfigs as one: the first to name something decides, as kubectl has it."""
    merged: Data = {"current-context": None, "clusters": [], "contexts": [], "users": []}
    for file in files:
        read = yaml.safe_load(file.read_bytes()) or {}
        merged["current-context"] = merged["current-context"] or read.get("current-context")
        for entries, (field, paths) in _LISTS.items():
            known = {each["name"] for each in merged[entries]}
            new = [each for each in read.get(entries) or () if each["name"] not in known]
            merged[entries] += [each | {field: _absolute(each.get(field) or {}, paths, file)} for each in new]
    return KubeConfig.from_dict(merged)


def _absolute(fields: Data, paths: Iterable[str], file: Path) -> Data:
    return fields | {key: str(file.absolute().parent / fields[key]) for key in paths if fields.get(key)}


def _usable(config: SingleConfig) -> SingleConfig:
    """With a user, since lightkube wants one, whose plugin speaks a version that lightkube knows.

    Version v1 of the plugins' protocol hands out the same token as v1beta1.
    """
    user = config.user or User()
    if user.exec and user.exec.apiVersion == f"{_EXEC}v1":
        user.exec.apiVersion = f"{_EXEC}v1beta1"
    return config._replace(user=user)
