"""A stand-in for kube-apiserver, over real HTTP on loopback.

No kube-apiserver can be had where these tests must run (no package of Debian or Python ships one), so this plays the
part of the API machinery that denylog leans on, as the Kubernetes pages on API concepts and server-side apply describe
it: discovery, lists in pages or from memory, metadata alone, watches with bookmarks and 410 Gone, managed fields,
conflicts, dry runs, preconditions, 401, 403, 429, connections that break. lightkube and httpx2 in front of it are the
real ones. What it does not do (admission, schemas, defaults beyond Calico's tier) is not what the tests are about.
"""

from __future__ import annotations

import base64
import copy
import json
import ssl
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from policies.resources import OWNERS, READS, WRITES, Resource

Data = dict[str, Any]
Key = tuple[str, str]  # namespace ("" outside of one) and name
Fields = frozenset[tuple[str, ...]]

KNOWN = (*READS, *OWNERS)
TYPED = ("", "networking.k8s.io", "apps", "batch")
"""Groups whose lists are typed: their items carry neither apiVersion nor kind."""
TOKENS: Mapping[str, tuple[str, ...]] = {
    "reader": ("get", "list", "watch"),
    "editor": ("get", "list", "watch", "create", "patch", "delete"),
}
_TIERED = {(resource.api_version, resource.plural) for resource in WRITES}
_VERBS = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}


class Refusal(Exception):
    """An answer that is a Status: HTTP code, reason, sentence, causes."""

    def __init__(self, code: int, reason: str, message: str, causes: list[Data] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status: Data = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        self.status |= {"message": message, "reason": reason, "code": code}
        if causes:
            self.status["details"] = {"causes": causes}


@dataclass
class ApiServer:
    """The cluster's state and its server; change it with `put` and `remove`, and its mood with the other fields.

    `served`: API versions that exist. `forbidden`: (verb, plural) pairs that nobody may. `busy`: how many of the next
    requests are answered 429. `gone_as_status`: a version that is too old is told as HTTP 410 rather than as an event.
    `creates_by_apply`: False plays Calico 3.32.0's API server, where applying what does not exist is a 404.
    `certificate`: files of a certificate and its key (HTTPS). `port`: 0 takes a free one. `requests`: method and
    path of all that came; `times`: when each came, by the monotonic clock.
    """

    served: frozenset[str] = frozenset(resource.api_version for resource in KNOWN)
    forbidden: set[tuple[str, str]] = field(default_factory=set)
    busy: int = 0
    gone_as_status: bool = False
    creates_by_apply: bool = True
    bookmark_s: float = 0.2
    certificate: tuple[Path, Path] | None = None
    port: int = 0
    requests: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.revision, self.oldest, self.generation = 1000, 1000, 0
        self.objects: dict[Resource, dict[Key, Data]] = {}
        self.history: list[tuple[int, Resource, str, Data]] = []
        self.changed = threading.Condition()
        self._pages: dict[str, tuple[int, list[Data]]] = {}
        handler = type("Handler", (_Handler,), {"api": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.certificate)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)

    @property
    def url(self) -> str:
        return f"http{'s' if self.certificate else ''}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self.drop()
        self._http.shutdown()
        self._http.server_close()

    def kubeconfig(self, path: Path, token: str = "editor", context: str = "test") -> Path:
        """Write a kubeconfig that leads here."""
        entry = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": context,
            "clusters": [{"name": context, "cluster": {"server": self.url}}],
            "users": [{"name": context, "user": {"token": token}}],
            "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        }
        path.write_text(json.dumps(entry))
        return path

    # -- what the test does to the cluster ----------------------------------------------------------------------------

    def put(self, *objects: Data, manager: str = "kubectl") -> None:
        """Create or replace, as an `Update` of this manager."""
        for each in objects:
            resource = resource_of(each)
            with self.changed:
                old = self.objects.get(resource, {}).get(_key(each))
                managed = [_entry(manager, "Update", _leaves(each))]
                self._store(resource, each, old, managed)

    def remove(self, kind: str, name: str, namespace: str = "") -> None:
        """Delete one object."""
        resource = next(r for r in self.objects if r.kind == kind and (namespace, name) in self.objects[r])
        with self.changed:
            self._delete(resource, (namespace, name))

    def compact(self) -> None:
        """Forget all history: a watch or page from before is told 410 Gone."""
        with self.changed:
            self.oldest = self.revision = self.revision + 1
            self._pages.clear()
            self.changed.notify_all()

    def drop(self) -> None:
        """Break every watch that is open now, in the middle of its stream."""
        with self.changed:
            self.generation += 1
            self.changed.notify_all()

    def find(self, kind: str, name: str, namespace: str = "") -> Data | None:
        """One object as it is stored."""
        for resource, held in self.objects.items():
            if resource.kind == kind and (namespace, name) in held:
                return copy.deepcopy(held[namespace, name])
        return None

    # -- storage ------------------------------------------------------------------------------------------------------

    def _store(self, resource: Resource, new: Data, old: Data | None, managed: list[Data], dry: bool = False) -> Data:
        new = copy.deepcopy(new)
        metadata = new["metadata"]
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        before = old["metadata"] if old else {"uid": str(uuid.uuid4()), "creationTimestamp": now}
        metadata |= {key: before[key] for key in ("uid", "creationTimestamp")}
        if (resource.api_version, resource.plural) in _TIERED:  # what Calico's API server adds of itself
            tier = new.setdefault("spec", {}).setdefault("tier", "default")
            metadata.setdefault("labels", {})["projectcalico.org/tier"] = tier
        metadata["managedFields"] = managed
        if old is not None and _content(new) == _content(old):
            return old
        if dry:
            metadata["resourceVersion"] = before.get("resourceVersion", "")
            return new
        self.revision += 1
        metadata["resourceVersion"] = str(self.revision)
        self.objects.setdefault(resource, {})[_key(new)] = new
        self._tell(resource, "MODIFIED" if old else "ADDED", new)
        return new

    def _delete(self, resource: Resource, key: Key) -> None:
        gone = copy.deepcopy(self.objects[resource].pop(key))
        self.revision += 1
        gone["metadata"]["resourceVersion"] = str(self.revision)
        self._tell(resource, "DELETED", gone)

    def _tell(self, resource: Resource, kind: str, found: Data) -> None:
        self.history.append((self.revision, resource, kind, found))
        self.changed.notify_all()

    # -- verbs --------------------------------------------------------------------------------------------------------

    def list(self, resource: Resource, query: Mapping[str, str]) -> Data:
        with self.changed:
            if query.get("continue") and query.get("resourceVersion"):
                raise Refusal(400, "BadRequest", "resource version may not be set with a continue token")
            if token := query.get("continue"):
                if token not in self._pages:
                    raise Refusal(410, "Expired", "The provided continue parameter is too old")
                revision, left = self._pages.pop(token)
            else:
                held = self.objects.get(resource, {})
                revision = self.revision
                left = [copy.deepcopy(held[key]) for key in sorted(held)]
                left = [each for each in left if _selected(each, query.get("labelSelector", ""))]
            # From its memory a server sends everything at once, whatever the limit (API concepts, "resourceVersion").
            unlimited = query.get("resourceVersion") == "0"
            limit = len(left) if unlimited else int(query.get("limit") or 0) or len(left)
            page, left = left[:limit], left[limit:]
            metadata: Data = {"resourceVersion": str(revision)}
            if left:
                token = base64.b64encode(uuid.uuid4().bytes).decode()
                self._pages[token] = (revision, left)
                metadata |= {"continue": token, "remainingItemCount": len(left)}
        if resource.group in TYPED:
            for each in page:
                each.pop("apiVersion", None), each.pop("kind", None)
        return {
            "apiVersion": resource.api_version,
            "kind": f"{resource.kind}List",
            "metadata": metadata,
            "items": page,
        }

    def watch(self, resource: Resource, query: Mapping[str, str]) -> Iterator[Data]:
        """Events; ends after timeoutSeconds, and raises ConnectionAbortedError where `drop` was called."""
        version = int(query.get("resourceVersion") or self.revision)
        if version < self.oldest:
            gone = Refusal(410, "Expired", f"too old resource version: {version} ({self.oldest})")
            if self.gone_as_status:
                raise gone
            yield {"type": "ERROR", "object": gone.status}
            return
        generation, end = self.generation, time.monotonic() + float(query.get("timeoutSeconds") or 1800)
        while time.monotonic() < end:
            with self.changed:
                if not self._since(resource, version) and generation == self.generation:
                    self.changed.wait(self.bookmark_s)
                if generation != self.generation:
                    raise ConnectionAbortedError
                news, version = self._since(resource, version), self.revision
            for _, _, kind, found in news:
                yield {"type": kind, "object": found}
            if not news and query.get("allowWatchBookmarks") == "true":
                metadata = {"resourceVersion": str(version), "creationTimestamp": None}
                head = {"kind": resource.kind, "apiVersion": resource.api_version}
                yield {"type": "BOOKMARK", "object": {**head, "metadata": metadata}}

    def _since(self, resource: Resource, version: int) -> list[tuple[int, Resource, str, Data]]:
        return [entry for entry in self.history if entry[0] > version and entry[1] == resource]

    def create(self, resource: Resource, wanted: Data, query: Mapping[str, str]) -> Data:
        with self.changed:
            if _key(wanted) in self.objects.get(resource, {}):
                raise Refusal(409, "AlreadyExists", f'{resource} "{wanted["metadata"]["name"]}" already exists')
            managed = [_entry(query.get("fieldManager", "unknown"), "Update", _leaves(wanted))]
            return self._store(resource, wanted, None, managed, dry="dryRun" in query)

    def apply(self, resource: Resource, key: Key, wanted: Data, query: Mapping[str, str]) -> Data:
        """Server-side apply: fields are owned by managers, lists are atomic (as CRDs without listType have them)."""
        manager = query.get("fieldManager")
        if not manager:
            raise Refusal(422, "Invalid", "fieldManager: Required value: is required for apply patch")
        if "managedFields" in wanted["metadata"]:
            raise Refusal(400, "BadRequest", "metadata.managedFields must be nil")
        with self.changed:
            old = self.objects.get(resource, {}).get(key)
            wanted_version = wanted["metadata"].get("resourceVersion")
            if old is None and not self.creates_by_apply:
                raise Refusal(404, "NotFound", f'{resource} "{key[1]}" not found')
            if wanted_version and wanted_version != (old or {"metadata": {}})["metadata"].get("resourceVersion"):
                raise Refusal(409, "Conflict", "the object has been modified; please apply your changes to the latest")
            entries = copy.deepcopy(old["metadata"]["managedFields"]) if old else []
            mine = _leaves(wanted)
            others = [e for e in entries if (e["manager"], e["operation"]) != (manager, "Apply")]
            self._check(old, wanted, mine, others, query.get("force") == "true", resource)
            for each in others:
                each["fieldsV1"] = _tree(_paths(each["fieldsV1"]) - (mine if query.get("force") == "true" else set()))
            before = next((e for e in entries if (e["manager"], e["operation"]) == (manager, "Apply")), None)
            kept = frozenset().union(*(_paths(each["fieldsV1"]) for each in others)) | mine
            merged = copy.deepcopy(old) if old else {"metadata": {}}
            for path in (_paths(before["fieldsV1"]) if before else frozenset()) - kept:
                _drop_at(merged, path)
            for path in mine:
                _set_at(merged, path, _at(wanted, path))
            merged |= {"apiVersion": resource.api_version, "kind": resource.kind}
            merged["metadata"] |= {"name": key[1]} | ({"namespace": key[0]} if key[0] else {})
            managed = [*(e for e in others if e["fieldsV1"]), _entry(manager, "Apply", mine)]
            return self._store(resource, merged, old, managed, dry="dryRun" in query)

    def _check(
        self, old: Data | None, new: Data, mine: Fields, others: list[Data], force: bool, resource: Resource
    ) -> None:
        causes = [
            {
                "reason": "FieldManagerConflict",
                "message": f'conflict with "{other["manager"]}" using {resource.api_version}',
                "field": "." + ".".join(path),
            }
            for other in others
            for path in sorted(_paths(other["fieldsV1"]) & mine)
            if old is not None and _at(old, path) != _at(new, path)
        ]
        if causes and not force:
            raise Refusal(409, "Conflict", f"Apply failed with {len(causes)} conflict(s)", causes)

    def delete(self, resource: Resource, key: Key, options: Data) -> Data:
        with self.changed:
            found = self.objects.get(resource, {}).get(key)
            if found is None:
                raise Refusal(404, "NotFound", f'{resource} "{key[1]}" not found')
            for name, wanted in (options.get("preconditions") or {}).items():
                if found["metadata"][name] != wanted:
                    message = f"the {name} in the precondition ({wanted}) does not match ({found['metadata'][name]})"
                    raise Refusal(409, "Conflict", message)
            if not options.get("dryRun"):
                self._delete(resource, key)
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}


# -- field sets ------------------------------------------------------------------------------------------------------

_NO_FIELDS = {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")}
_MANAGED = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields")


def _leaves(found: Any, at: tuple[str, ...] = ()) -> Fields:
    if at[:1] == ("metadata",) and at[1:2] and at[1] in _MANAGED:
        return frozenset()
    if isinstance(found, dict) and found:
        return frozenset().union(*(_leaves(each, (*at, key)) for key, each in found.items())) - _NO_FIELDS
    return frozenset([at])


def _tree(paths: Fields) -> Data:
    tree: Data = {}
    for path in paths:
        place = tree
        for step in path:
            place = place.setdefault(f"f:{step}", {})
    return tree


def _paths(tree: Data, at: tuple[str, ...] = ()) -> Fields:
    if not tree:
        return frozenset([at]) if at else frozenset()
    return frozenset().union(*(_paths(each, (*at, key.removeprefix("f:"))) for key, each in tree.items()))


def _entry(manager: str, operation: str, paths: Fields) -> Data:
    return {"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": _tree(paths)}


def _at(found: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _set_at(found: Data, path: tuple[str, ...], value: Any) -> None:
    for step in path[:-1]:
        found = found.setdefault(step, {})
    found[path[-1]] = copy.deepcopy(value)


def _drop_at(found: Any, path: tuple[str, ...]) -> None:
    inner = _at(found, path[:-1])
    if isinstance(inner, dict):
        inner.pop(path[-1], None)


def _content(found: Data) -> Data:
    metadata = {key: value for key, value in found["metadata"].items() if key not in ("resourceVersion", "generation")}
    return found | {"metadata": metadata}


def _key(found: Data) -> Key:
    return found["metadata"].get("namespace") or "", found["metadata"]["name"]


def _selected(found: Data, selector: str) -> bool:
    labels = found["metadata"].get("labels") or {}
    wanted = (term.replace("==", "=").partition("=") for term in selector.split(",") if term)
    return all(labels.get(key) == value for key, _, value in wanted)


def resource_of(found: Data) -> Resource:
    """The row of the table for an object."""
    return next(r for r in KNOWN if (r.api_version, r.kind) == (found["apiVersion"], found["kind"]))


# -- HTTP -------------------------------------------------------------------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    api: ApiServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65536

    def log_message(self, *args: object) -> None:
        """Tests are quiet."""

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def finish(self) -> None:
        with suppress(ConnectionError):
            super().finish()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.api.changed:
            self.api.requests.append(f"{self.command} {self.path}")
            self.api.times.append(time.monotonic())
        try:
            if self.api.busy > 0:
                self.api.busy -= 1
                raise Refusal(429, "TooManyRequests", "the server has received too many requests")
            self._route(json.loads(body) if body else {})
        except Refusal as refusal:
            self._answer(refusal.code, refusal.status, {"Retry-After": "0"} if refusal.code == 429 else {})
        except (ConnectionError, BrokenPipeError):
            self.close_connection = True

    do_GET = do_POST = do_PATCH = do_DELETE = _serve

    def _route(self, body: Data) -> None:
        parts = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        steps = parts.path.strip("/").split("/")
        version, rest = ("/".join(steps[1:3]), steps[3:]) if steps[0] == "apis" else (steps[1], steps[2:])
        rights = TOKENS.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
        if rights is None:
            raise Refusal(401, "Unauthorized", "Unauthorized")
        here = [each for each in KNOWN if each.api_version == version and version in self.api.served]
        if not rest and here:
            names = [{"name": each.plural, "namespaced": each.namespaced, "kind": each.kind} for each in here]
            return self._answer(200, {"kind": "APIResourceList", "groupVersion": version, "resources": names})
        namespace = rest[1] if rest[:1] == ["namespaces"] and len(rest) > 2 else ""
        plural, *names = rest[2:] if namespace else rest or [""]
        resource = next((each for each in here if each.plural == plural), None)
        if resource is None:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        verb = _VERBS.get(self.command) or ("get" if names else "watch" if "watch" in query else "list")
        if verb not in rights or (verb, plural) in self.api.forbidden:
            message = f'{resource} is forbidden: User "somebody" cannot {verb} resource "{plural}"'
            raise Refusal(403, "Forbidden", message)
        self._perform(verb, resource, (namespace, "".join(names)), query, body)

    def _perform(self, verb: str, resource: Resource, key: Key, query: dict[str, str], body: Data) -> None:
        api = self.api
        if verb == "watch":
            return self._stream(api.watch(resource, query))
        if verb == "patch" and self.headers.get("Content-Type") != "application/apply-patch+yaml":
            raise Refusal(415, "UnsupportedMediaType", "only apply patches are played here")
        if verb == "get":
            found = api.objects.get(resource, {}).get(key)
            if found is None:
                raise Refusal(404, "NotFound", f'{resource} "{key[1]}" not found')
            return self._answer(200, self._pared(found))
        answers = {
            "list": lambda: api.list(resource, query),
            "create": lambda: api.create(resource, body, query),
            "patch": lambda: api.apply(resource, key, body, query),
            "delete": lambda: api.delete(resource, key, body),
        }
        self._answer(201 if verb == "create" else 200, self._pared(answers[verb]()))

    def _pared(self, found: Data) -> Data:
        """Nothing but metadata, where that is what the client accepts best."""
        if ";as=PartialObjectMetadata" not in self.headers.get("Accept", "").partition(",")[0]:
            return found
        head = {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata"}
        if "items" not in found:
            return {**head, "metadata": found["metadata"]}
        items = [{"metadata": each["metadata"]} for each in found["items"]]
        return {**head, "kind": "PartialObjectMetadataList", "metadata": found["metadata"], "items": items}

    def _answer(self, code: int, found: Data, headers: Mapping[str, str] | None = None) -> None:
        text = json.dumps(found).encode()
        self.send_response(code)
        for key, value in {"Content-Type": "application/json", "Content-Length": str(len(text))}.items():
            self.send_header(key, value)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(text)

    def _stream(self, events: Iterator[Data]) -> None:
        first = next(events, None)  # a refusal comes before the status line
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        for event in (each for each in (first, *()) if each):
            self._chunk(json.dumps(event).encode() + b"\n")
        for event in events:
            self._chunk(json.dumps(event).encode() + b"\n")
        self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()
