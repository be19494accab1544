"""A live cluster: the connection, and plain requests for what `policies.resources` lists.

Rule: whatever goes wrong is a ClusterError with what to do next, and nothing waits without end. lightkube knows how to
connect and to sign in (TLS, tokens that rotate, exec plugins). The requests are written out here, since its own client
asks for no bookmarks, bounds no watch and deletes without preconditions.
"""

from __future__ import annotations

import json
import os
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

from policies.errors import ClusterError
from policies.resources import READS as READS
from policies.resources import SERVED, STORED, Resource
from policies.resources import WRITES as WRITES

Data: TypeAlias = dict[str, Any]

CONNECT_S = 10.0
ANSWER_S = 30.0
"""How long an API server may keep silent within one answer; kube-apiserver ends its own work after 60 s."""
WATCH_S = 290
"""After this time the server ends a watch, and the next one begins where it ended."""
SILENCE_S = 330.0
"""A watch that is silent for longer than the server would let it last has lost its connection."""
PAGE = 500
"""Objects in one page of a list, as kubectl asks for."""
ATTEMPTS = 5
"""How often a busy server (429, 503 with Retry-After) is asked."""
LONGEST_PAUSE_S = 10.0
GONE = 410
"""The code of what has expired: a version to watch from, a page of a list."""
MANAGER = "denylog"
"""The field manager of everything that is applied."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some objects of a list, and the version of the whole list, from which a watch goes on."""

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
        self._watches: set[socket.socket] = set()

    @classmethod
    def connect(cls, context: str | None = None, kubeconfig: str | None = None) -> Self:
        """The cluster that kubectl would talk to, or the one around this pod. Nothing is sent yet."""
        return cls(_configuration(context, kubeconfig))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def interrupt(self) -> None:
        """End the watches that are open, whichever thread waits for them."""
        for each in list(self._watches):
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

    def pages(self, resource: Resource, labels: str = "", limit: int | None = PAGE) -> Iterator[Page]:
        """All objects of the cluster as they were at one moment. Code 410: a page has expired, begin again."""
        params = {"limit": limit, "labelSelector": labels or None, "continue": None}
        while True:
            page = self._send("GET", resource.path(), f"list {resource}", params=params) or {}
            metadata = page.get("metadata") or {}
            found = tuple(_whole(each, resource) for each in page.get("items") or ())
            yield Page(found, metadata.get("resourceVersion") or "")
            params["continue"] = metadata.get("continue")
            if not params["continue"]:
                return

    def get(self, resource: Resource, namespace: str | None, name: str) -> Data | None:
        """One object, or None where there is none of that name."""
        found = self._send("GET", resource.path(namespace, name), f"get {resource}", absent=True)
        return _whole(found, resource) if found else None

    def watch(self, resource: Resource, version: str) -> Iterator[Event]:
        """Changes after a version, until the server ends the watch. Code 410: the version is too old, list again."""
        params = {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(WATCH_S)}
        params["allowWatchBookmarks"] = "true"
        asked = f"watch {resource}"
        with (
            self._told(),
            self._client.stream(
                "GET", resource.path(), params=params, timeout=httpx2.Timeout(SILENCE_S, connect=CONNECT_S)
            ) as response,
        ):
            if not response.is_success:
                response.read()
                raise self._refused(response, asked)
            connection = response.extensions["network_stream"].get_extra_info("socket")
            self._watches.add(connection)
            try:
                for line in filter(None, response.iter_lines()):
                    yield self._event(self._json(line), resource, asked)
            finally:
                self._watches.discard(connection)

    def _event(self, event: Data, resource: Resource, asked: str) -> Event:
        found = event.get("object") or {}
        if event.get("type") == "ERROR":
            raise self._failed(int(found.get("code") or 0), str(found.get("message") or ""), asked)
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
        kind: str = "application/json",
        absent: bool = False,
    ) -> Data | None:
        """The answer; None for a 404 where `absent` says that it may be."""
        given = {key: str(value) for key, value in (params or {}).items() if value is not None}
        content = None if body is None else json.dumps(body)
        headers = {"Accept": "application/json"} | ({} if body is None else {"Content-Type": kind})
        with self._told():
            for attempt in range(ATTEMPTS):
                response = self._client.request(method, path, params=given, content=content, headers=headers)
                if not _is_busy(response) or attempt == ATTEMPTS - 1:
                    break
                time.sleep(_pause(response))
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
            raise ClusterError(where, "does not answer in time", _REACH, retryable=True) from error
        except httpx2.RequestError as error:
            raise _unreachable(where, error) from error
        except httpx2.InvalidURL as error:
            raise ClusterError(where, f"is no address ({error})", "correct 'server' in the kubeconfig") from error
        except RuntimeError as error:  # httpx2 says so when another thread closes the client
            raise ClusterError(where, "the connection was closed", retryable=True) from error
        except (ConfigError, OSError, KeyError, TypeError, ValueError) as error:
            what = f"cannot be asked with these credentials ({_words(error)})"
            raise ClusterError(where, what, "check the user and the certificates in the kubeconfig") from error

    def _json(self, text: bytes | str) -> Data:
        """An answer; what sits in between (a proxy, a login page) may answer in its stead."""
        with suppress(ValueError):
            answer = json.loads(text)
            if isinstance(answer, dict):
                return answer
        what = "answers, but not as a Kubernetes API server does"
        raise ClusterError(f"cluster {self.name} ({self.server})", what, _REACH)

    def _refused(self, response: httpx2.Response, asked: str) -> ClusterError:
        with suppress(ValueError, TypeError, AttributeError):
            status = response.json()
            return self._failed(response.status_code, _message(status), asked)
        return self._failed(response.status_code, response.reason_phrase, asked)

    def _failed(self, code: int, message: str, asked: str) -> ClusterError:
        what, do = _STATUS.get(code, ("refuses to {asked}: {message}", ""))
        retryable = code == httpx2.codes.TOO_MANY_REQUESTS or code >= httpx2.codes.INTERNAL_SERVER_ERROR
        if retryable:
            what, do = "cannot {asked} now ({code}: {message})", "try again later"
        told = what.format(asked=asked, message=message or "no reason given", code=code)
        return ClusterError(f"cluster {self.name}", told, do.format(asked=asked), code=code, retryable=retryable)


_REACH = "check the network and 'kubectl cluster-info', or name another --context"

_STATUS: Mapping[int, tuple[str, str]] = {
    401: ("does not accept the credentials (401)", "log in again, or name another --context"),
    403: ("does not let you {asked} (403: {message})", "ask for the verb, or try 'kubectl auth can-i {asked} -A'"),
}


def _message(status: Data) -> str:
    """The sentence of a Status, with its causes where there are several."""
    causes = (status.get("details") or {}).get("causes") or []
    told = "; ".join(f"{each.get('field', '')}: {each.get('message', '')}" for each in causes)
    return told or str(status.get("message") or "")


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _unreachable(where: str, error: httpx2.RequestError) -> ClusterError:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        what = f"shows a certificate that is not trusted ({_words(error)})"
        return ClusterError(where, what, "check certificate-authority in the kubeconfig")
    return ClusterError(where, f"cannot be reached ({_words(error)})", _REACH, retryable=True)


def _whole(found: Data, resource: Resource) -> Data:
    """With its kind, which the items of a list lack."""
    return {"apiVersion": resource.api_version, "kind": resource.kind} | found


def _dry(dry_run: bool) -> str | None:
    return "All" if dry_run else None


def _is_busy(response: httpx2.Response) -> bool:
    code = response.status_code
    return code == httpx2.codes.TOO_MANY_REQUESTS or (
        code == httpx2.codes.SERVICE_UNAVAILABLE and "Retry-After" in response.headers
    )


def _pause(response: httpx2.Response) -> float:
    try:
        return min(float(response.headers.get("Retry-After", 1)), LONGEST_PAUSE_S)
    except ValueError:
        return 1.0


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
        raise ClusterError(where, _words(error), "'kubectl config get-contexts' lists them") from error
    except OSError as error:
        raise ClusterError(where, f"cannot be read ({error.strerror})", "name another with --kubeconfig") from error
    except (LookupError, TypeError, AttributeError, ValueError, msgspec.MsgspecError, yaml.YAMLError) as error:
        what = f"is no kubeconfig ({_words(error)})"
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
