"""A live cluster: reading it, and keeping its Log policies in step. The API server is a stand-in (`apiserver`)."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from lightkube.config.kubeconfig import KubeConfig

from policies import kube
from policies.cluster_source import LiveCluster
from policies.commands import policies
from policies.errors import ClusterError
from policies.kube import Cluster
from policies.resources import READS, WRITES
from tests.policies.apiserver import ApiServer

ROOT = Path(__file__).parents[2]
PODS = next(resource for resource in READS if resource.kind == "Pod")


def _object(api: str, kind: str, name: str, namespace: str | None = None, **rest: Any) -> dict[str, Any]:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": api, "kind": kind, "metadata": metadata | rest.pop("metadata", {}), **rest}


def _deny(name: str, namespace: str, **labels: str) -> dict[str, Any]:
    """A Kubernetes policy that lets only pods labelled role=client in."""
    peers = [{"podSelector": {"matchLabels": {"role": "client"}}}]
    spec = {"podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress"], "ingress": [{"from": peers}]}
    return _object("networking.k8s.io/v1", "NetworkPolicy", name, namespace, spec=spec)


def _pod(name: str, address: str, namespace: str = "shop", **labels: str) -> dict[str, Any]:
    return _object(
        "v1",
        "Pod",
        name,
        namespace,
        metadata={"labels": labels},
        spec={"nodeName": "worker-1", "containers": [{"name": "main", "image": "registry.example/app"}]},
        status={"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    )


CALICO = "projectcalico.org/v3"
WORLD = [
    _object("v1", "Namespace", "shop", metadata={"labels": {"team": "a"}}),
    _pod("web", "10.0.0.1", app="web", legacy="yes"),
    _pod("client", "10.0.0.2", role="client"),
    _pod("batch", "10.0.0.3", role="batch"),
    _deny("web", "shop", app="web"),
    _deny("db", "shop", app="db"),
    _deny("api", "back", app="api"),
    _object(
        CALICO,
        "GlobalNetworkPolicy",
        "no-telnet",
        spec={
            "order": 500,
            "selector": "legacy == 'yes'",
            "types": ["Ingress"],
            "ingress": [{"action": "Deny", "protocol": "TCP", "destination": {"ports": [23]}}],
        },
    ),
    _object(CALICO, "Tier", "platform", spec={"order": 100}),
    _object(CALICO, "GlobalNetworkSet", "partners", spec={"nets": ["192.0.2.0/24"]}),
    _object(CALICO, "ClusterInformation", "default", spec={"calicoVersion": "v3.31.4"}),
    _object(CALICO, "FelixConfiguration", "default", spec={"nftablesMode": "Enabled"}),
]


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    with ApiServer() as server:
        server.put(*WORLD)
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "config")))
        yield server


def run(*arguments: str) -> Result:
    return CliRunner().invoke(policies, arguments)


def _log(api: ApiServer) -> list[str]:
    """Names of the Log policies of denylog that the cluster holds."""
    label = ("app.kubernetes.io/managed-by", "denylog")
    return sorted(
        name
        for held in api.objects.values()
        for (_, name), each in held.items()
        if label in each["metadata"].get("labels", {}).items()
    )


def _state(api: ApiServer) -> dict[Any, Any]:
    return copy.deepcopy(api.objects)


# -- reading ---------------------------------------------------------------------------------------------------------


def test_a_cluster_says_what_its_files_say(api: ApiServer, tmp_path: Path) -> None:
    """`generate --cluster` prints what `generate` prints for the same objects in files, notes included."""
    order = {resource: number for number, resource in enumerate(READS)}
    held = sorted(api.objects.items(), key=lambda each: order[each[0]])
    dump = tmp_path / "dump.yaml"
    dump.write_text(yaml.safe_dump_all(found for _, objects in held for _, found in sorted(objects.items())))
    live, files = run("generate", "--cluster"), run("generate", str(dump))
    assert (live.exit_code, live.stdout) == (0, files.stdout)
    assert "no-telnet" in live.stderr
    assert set(live.stderr.splitlines()) <= set(files.stderr.splitlines())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("explain", "--from", "batch", "--to", "web:80/tcp"), "shop/batch to shop/web, TCP port 80: DENIED"),
        (("who-can", "shop/web:80"), "allowed  shop/client"),
        (("convert", "-o", "json"), '"name": "web"'),
        (("validate",), "valid: "),
        (("lint",), "KubernetesNetworkPolicy back/api: selects none of the 3 pods given"),
        (("allow", "--from", "batch", "--to", "web:80/tcp"), "kind: NetworkPolicy"),
        (("felix",), '"logPrefix": "calico-packet %n"'),
    ],
)
def test_every_question_can_be_asked_of_a_cluster(
    api: ApiServer, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    """With rights to read alone, and nothing but reading is done."""
    reader = api.kubeconfig(tmp_path / "reader", "reader")
    result = run(*arguments, "--cluster", "--kubeconfig", str(reader))
    assert says in result.stdout, result.stderr
    assert {request.split()[0] for request in api.requests} == {"GET"}


def test_only_questions_about_pods_read_pods(api: ApiServer) -> None:
    """A proof about policies does not list the thousands of pods of a cluster."""
    run("generate", "--cluster")
    assert not [request for request in api.requests if "/pods" in request or "/services" in request]


def test_what_if_takes_files_over_the_cluster(api: ApiServer, tmp_path: Path) -> None:
    """A changed policy replaces the one of its name; the others stay as they are in the cluster."""
    opened = _deny("web", "shop", app="web") | {
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{}]}
    }
    (tmp_path / "new.yaml").write_text(json.dumps(opened))
    flow = {"source_ip": "10.0.0.3", "destination_ip": "10.0.0.1", "protocol": "tcp", "destination_port": 80}
    telnet = flow | {"destination_port": 23}
    (tmp_path / "flows").write_text(f"{json.dumps(flow)}\n{json.dumps(telnet)}\n")
    result = run("what-if", str(tmp_path / "new.yaml"), "--cluster", "--flows", str(tmp_path / "flows"))
    assert "opened         shop/batch to shop/web, TCP port 80" in result.stdout, result.output
    assert "still denied   shop/batch to shop/web, TCP port 23" in result.stdout


def test_verify_takes_the_cluster_for_its_sources(api: ApiServer, tmp_path: Path) -> None:
    """The file of Log policies is proved against what the cluster has."""
    log = tmp_path / "log.yaml"
    log.write_text(run("generate", "--cluster").stdout)
    assert run("verify", "--cluster", str(log)).exit_code == 0
    api.remove("NetworkPolicy", "web", "shop")
    assert run("verify", "--cluster", str(log)).exit_code == 1
    assert "Missing argument 'GENERATED'" in run("verify", "--cluster").stderr


def test_long_lists_come_in_pages(api: ApiServer) -> None:
    """1 203 pods are three pages, and each pod is there once, with its kind."""
    api.put(*(_pod(f"p{number:04}", f"10.1.{number // 250}.{number % 250}") for number in range(1200)))
    with LiveCluster().connect() as cluster:
        pages = list(cluster.pages(PODS))
    found = [each for page in pages for each in page.objects]
    assert len({each["metadata"]["name"] for each in found}) == len(found) == 1203
    assert {(each["apiVersion"], each["kind"]) for each in found} == {("v1", "Pod")}
    assert pages[-1].version == str(api.revision)
    assert len([request for request in api.requests if "/pods" in request]) == 3


def test_a_page_that_expired_begins_the_list_again(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compaction between two pages loses no object and doubles none."""
    api.put(*(_pod(f"p{number:04}", f"10.1.{number // 250}.{number % 250}") for number in range(600)))
    plain, asked = api.list, []

    def compacting(*given: Any) -> Any:
        asked.append(given)
        answer = plain(*given)
        if len(asked) == 1:
            api.compact()
        return answer

    monkeypatch.setattr(api, "list", compacting)
    with LiveCluster().connect() as cluster:
        assert len(cluster.list(PODS)) == 603
    assert len(asked) == 4


def test_without_calicos_api_server_its_storage_is_read(api: ApiServer) -> None:
    """crd.projectcalico.org/v1 counts only where projectcalico.org/v3 is not served; missing groups are no error."""
    stored = _object("crd.projectcalico.org/v1", "GlobalNetworkPolicy", "default.stored", spec={"types": ["Ingress"]})
    api.put(stored)
    assert '"stored"' not in run("convert", "--cluster", "-o", "json").stdout
    api.served -= {CALICO, "policy.networking.k8s.io/v1alpha1", "policy.networking.k8s.io/v1alpha2"}
    result = run("convert", "--cluster", "-o", "json")
    assert (result.exit_code, '"name": "stored"' in result.stdout, "no-telnet" in result.stdout) == (0, True, False)


def test_kubernetes_policies_that_calico_lists_as_its_own_are_read_once(api: ApiServer) -> None:
    """Older API servers of Calico show them as knp.default.NAME."""
    api.put(_object(CALICO, "NetworkPolicy", "knp.default.web", "shop", spec={"types": ["Ingress"]}))
    assert "knp" not in run("convert", "--cluster").output


def test_a_broken_policy_in_the_cluster_is_named(api: ApiServer) -> None:
    """By the cluster, its resource and its name, since there is no file."""
    bad = _object(CALICO, "GlobalNetworkPolicy", "bad", spec={"selector": "a = b", "types": ["Ingress"]})
    api.put(bad)
    result = run("generate", "--cluster")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "test globalnetworkpolicies.projectcalico.org/bad" in result.stderr


# -- connecting ------------------------------------------------------------------------------------------------------


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _config(path: Path, **cluster: Any) -> Path:
    user = cluster.pop("user", {"token": "reader"})
    config = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(json.dumps(config))
    return path


def _trouble(*arguments: str) -> tuple[int, str]:
    result = run("validate", "--cluster", *arguments)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    return result.exit_code, result.stderr


def test_credentials_that_are_refused(api: ApiServer, tmp_path: Path) -> None:
    """401 is a matter of the user: one sentence, exit code 2."""
    code, told = _trouble("--kubeconfig", str(api.kubeconfig(tmp_path / "other", "stranger")))
    assert (code, told) == (
        2,
        "cluster test: does not accept the credentials (401); log in again, or name another --context\n",
    )


def test_a_resource_that_may_not_be_listed(api: ApiServer) -> None:
    """403 names the verb and the resource: half of the policies would prove nothing."""
    api.forbidden.add(("list", "globalnetworkpolicies"))
    code, told = _trouble()
    assert code == 2
    assert "does not let you list globalnetworkpolicies.projectcalico.org (403" in told


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    """Trying again may help: exit code 3."""
    server = f"http://127.0.0.1:{_closed_port()}"
    code, told = _trouble("--kubeconfig", str(_config(tmp_path / "config", server=server)))
    assert code == 3
    assert told.startswith(f"cluster here ({server}): cannot be reached (")


def test_a_server_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up after its time, with exit code 3."""
    monkeypatch.setattr(kube, "ANSWER_S", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        server = f"http://127.0.0.1:{silent.getsockname()[1]}"
        code, told = _trouble("--kubeconfig", str(_config(tmp_path / "config", server=server)))
    assert (code, "does not answer in time" in told) == (3, True)


def test_a_server_that_is_busy_is_asked_again(api: ApiServer) -> None:
    """429 with Retry-After is waited for; one that stays busy is exit code 3."""
    api.busy = 3
    assert run("validate", "--cluster").exit_code == 0
    api.busy = 1000
    code, told = _trouble()
    assert (code, "(429: the server has received too many requests)" in told) == (3, True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "No current context set"),
        ("a: [", "is no kubeconfig"),
        ("[1, 2]", "is no kubeconfig"),
        ("current-context: x\ncontexts: [{name: x, context: {cluster: gone}}]", "is no kubeconfig ('gone')"),
        ("current-context: x", "Context 'x' not found"),
        (json.dumps({"clusters": [{"cluster": {}}]}), "is no kubeconfig ('name')"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used(tmp_path: Path, text: str, says: str) -> None:
    """One sentence with the file, exit code 2."""
    (tmp_path / "config").write_text(text)
    code, told = _trouble("--kubeconfig", str(tmp_path / "config"))
    assert (code, told.startswith(f"{tmp_path}/config: "), says in told) == (2, True, True), told


def test_no_kubeconfig_and_wrong_options(api: ApiServer, tmp_path: Path) -> None:
    """A missing file, a context that is not there, and options without --cluster."""
    assert "there is no kubeconfig" in _trouble("--kubeconfig", str(tmp_path / "absent"))[1]
    assert "Context 'nowhere' not found" in _trouble("--context", "nowhere")[1]
    result = run("lint", "--context", "test", "-")
    assert (result.exit_code, "--context and --kubeconfig go with --cluster" in result.stderr) == (2, True)


def test_something_else_that_answers(tmp_path: Path) -> None:
    """A web server that is no API server is told from one."""
    import http.server

    page = type("Page", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *given: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(page, directory=str(tmp_path))) as other:
        threading.Thread(target=other.serve_forever, args=(0.02,), daemon=True).start()
        for path in ("api/v1", "apis/networking.k8s.io/v1"):
            (tmp_path / path).mkdir(parents=True)
            (tmp_path / path / "index.html").write_text("<html>log in</html>")
        server = f"http://127.0.0.1:{other.server_address[1]}"
        code, told = _trouble("--kubeconfig", str(_config(tmp_path / "config", server=server)))
        other.shutdown()
    assert code == 2, told


def test_several_kubeconfigs_are_merged(api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KUBECONFIG may name several files; the first that names something decides, and --context finds all of them."""
    first = _config(tmp_path / "first", server="http://127.0.0.1:1")
    monkeypatch.setenv("KUBECONFIG", f"{first}{os.pathsep}{tmp_path / 'absent'}{os.pathsep}{tmp_path / 'config'}")
    assert Cluster.connect().server == "http://127.0.0.1:1"
    assert run("validate", "--cluster", "--context", "test").exit_code == 0


@pytest.mark.parametrize("version", ["v1beta1", "v1"])
def test_a_plugin_hands_out_the_token(api: ApiServer, tmp_path: Path, version: str) -> None:
    """As the clouds' kubeconfigs have it; one that fails is told with what it said."""
    answer = json.dumps({"kind": "ExecCredential", "status": {"token": "reader"}})
    plugin = {"apiVersion": f"client.authentication.k8s.io/{version}", "command": "echo", "args": [answer]}
    config = _config(tmp_path / "plugin", server=api.url, user={"exec": plugin})
    assert run("validate", "--cluster", "--kubeconfig", str(config)).exit_code == 0
    for command, says in (("false", "Exec false returned 1"), ("no-such-plugin", "no-such-plugin")):
        broken = _config(tmp_path / "broken", server=api.url, user={"exec": plugin | {"command": command}})
        code, told = _trouble("--kubeconfig", str(broken))
        assert (code, says in told) == (2, True), told


_SELF_SIGNED = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
    "-subj /CN=test -addext subjectAltName=IP:127.0.0.1"
)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    files = tmp_path / "tls.crt", tmp_path / "tls.key"
    subprocess.run(
        [*_SELF_SIGNED.split(), "-out", files[0], "-keyout", files[1]],
        check=True,
        capture_output=True,
    )
    return files


def test_certificates_are_checked(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    """One that nobody vouches for is refused; the kubeconfig may name its authority relative to itself."""
    with ApiServer(certificate=certificate) as api:
        api.put(*WORLD)
        code, told = _trouble("--kubeconfig", str(_config(tmp_path / "bad", server=api.url)))
        assert (code, "shows a certificate that is not trusted" in told) == (2, True)
        good = _config(tmp_path / "good", server=api.url, **{"certificate-authority": "tls.crt"})
        assert run("validate", "--cluster", "--kubeconfig", str(good)).exit_code == 0


def test_inside_a_pod_its_service_account_is_used(
    certificate: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no kubeconfig but a service account; the token is read again once the kubelet has rotated it."""
    account = {"token": "expired", "namespace": "denylog", "ca.crt": certificate[0].read_text()}
    for name, text in account.items():
        (tmp_path / name).write_text(text)
    plain = KubeConfig.from_service_account
    monkeypatch.setattr(KubeConfig, "from_service_account", lambda: plain(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with ApiServer(certificate=certificate) as api, monkeypatch.context() as patch:
        patch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        patch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
        with Cluster.connect() as cluster:
            with pytest.raises(ClusterError, match="401"):
                cluster.list(PODS)
            (tmp_path / "token").write_text("reader")
            assert cluster.list(PODS) == ()


def test_without_the_client_one_sentence_says_how_to_get_it(tmp_path: Path) -> None:
    """The extra is optional: everything else works without it."""
    program = "import sys; sys.modules['lightkube'] = None; import cli; cli.main()"
    for arguments in (["generate", "--cluster"], ["apply"]):
        ran = subprocess.run(
            [sys.executable, "-c", program, "policies", *arguments], capture_output=True, text=True, cwd=ROOT
        )
        assert ran.returncode == 2
        assert "pip install 'denylog[cluster]'" in ran.stderr
        assert "Traceback" not in ran.stderr


# -- diff, apply, prune ----------------------------------------------------------------------------------------------


def test_a_dry_run_changes_nothing(api: ApiServer) -> None:
    """The default: the server is asked, with dryRun=All, and holds the same as before."""
    before = _state(api)
    result = run("apply")
    assert (result.exit_code, result.stdout.count("(dry run)")) == (0, 4), result.output
    assert _state(api) == before
    writes = [request for request in api.requests if not request.startswith("GET")]
    assert len(writes) == 4
    assert all("dryRun=All" in request for request in writes)


def test_after_apply_nothing_differs(api: ApiServer) -> None:
    """diff shows the new objects before, nothing after; what a server adds is no difference; apply again is a no-op."""
    before = run("diff")
    assert (before.exit_code, before.stdout.count("+kind: ")) == (1, 4)
    assert run("apply", "--no-dry-run").exit_code == 0
    assert len(_log(api)) == 4
    after = run("diff")
    assert (after.exit_code, after.stdout) == (0, "")
    held = _state(api)
    again = run("apply", "--no-dry-run")
    assert (again.exit_code, again.stdout.count("unchanged")) == (0, 4)
    assert _state(api) == held


def test_a_changed_policy_changes_its_log_policy(api: ApiServer) -> None:
    """diff shows the lines, apply mends them, and a policy that is gone leaves one for prune."""
    run("apply", "--no-dry-run")
    api.put(_deny("cache", "shop", app="cache"))
    api.remove("NetworkPolicy", "api", "back")
    shown = run("diff")
    assert shown.exit_code == 1
    assert "+  selector: projectcalico.org/orchestrator == 'k8s' && app == 'cache' ||" in shown.stdout, shown.stdout
    assert "+++ /dev/null" in shown.stdout
    applied = run("apply", "--no-dry-run")
    assert "changed NetworkPolicy shop/" in applied.stdout
    assert "1 Log policies of denylog are not among these" in applied.stderr
    pruned = run("prune", "--no-dry-run")
    assert pruned.stdout == "deleted NetworkPolicy back/log-ingress (no longer generated)\n"
    assert run("diff").exit_code == 0


def test_what_is_not_ours_is_never_touched(api: ApiServer) -> None:
    """An object in the way is refused, and prune leaves everything without the label alone."""
    foreign = _object(
        CALICO, "NetworkPolicy", "log-ingress", "shop", spec={"types": ["Ingress"], "selector": "app == 'web'"}
    )
    foreign["spec"]["ingress"] = [{"action": "Log"}]
    api.put(foreign)
    before = _state(api)
    result = run("apply", "--no-dry-run")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "NetworkPolicy shop/log-ingress is in the cluster and is not denylog's" in result.stderr
    assert run("prune", "--no-dry-run").stdout == ""
    assert _state(api) == before


def test_what_others_changed_is_told_as_a_conflict(api: ApiServer) -> None:
    """The other objects are applied all the same; --force-conflicts takes the field back."""
    run("apply", "--no-dry-run")
    edited = api.find("NetworkPolicy", "log-ingress", "shop")
    assert edited is not None
    edited["spec"]["order"] = 2500
    api.put(edited, manager="kubectl-edit")
    result = run("apply", "--no-dry-run")
    assert (result.exit_code, result.stdout.count("unchanged")) == (1, 3)
    assert '.spec.order: conflict with "kubectl-edit"' in result.stderr
    assert "--force-conflicts takes the field over" in result.stderr
    assert run("apply", "--no-dry-run", "--force-conflicts").exit_code == 0
    assert (run("diff").exit_code, run("apply", "--no-dry-run").exit_code) == (0, 0)


def test_an_object_that_changed_since_it_was_read_is_left_alone(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading and deleting somebody replaces it: the server refuses, and it is told."""
    run("apply", "--no-dry-run")
    api.remove("NetworkPolicy", "api", "back")
    plain = api.delete

    def meanwhile(resource: Any, key: Any, options: Any) -> Any:
        changed = copy.deepcopy(api.objects[resource][key])
        changed["metadata"]["annotations"] = {"note": "mine now"}
        api.put(changed)
        return plain(resource, key, options)

    monkeypatch.setattr(api, "delete", meanwhile)
    result = run("prune", "--no-dry-run")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "does not match" in result.stderr
    assert "log-ingress" in _log(api)


def test_an_expiry_is_written_and_honoured(api: ApiServer) -> None:
    """--ttl writes the time, prune deletes after it and not before, apply without --ttl takes it away."""
    assert run("apply", "--ttl", "24h", "--no-dry-run").exit_code == 0
    assert run("diff").exit_code == 0
    held = api.find("NetworkPolicy", "log-ingress", "shop")
    assert held is not None
    assert held["metadata"]["annotations"]["denylog/expires-at"].endswith("Z")
    assert run("prune", "--expired", "--no-dry-run").stdout == ""
    held["metadata"]["annotations"]["denylog/expires-at"] = "2026-01-01T00:00:00Z"
    api.put(held, manager="denylog")
    dry = run("prune", "--expired")
    assert dry.stdout == "deleted NetworkPolicy shop/log-ingress (expired at 2026-01-01 00:00 UTC) (dry run)\n"
    assert len(_log(api)) == 4
    assert run("prune", "--expired", "--no-dry-run").exit_code == 0
    assert len(_log(api)) == 3
    assert run("apply", "--no-dry-run").exit_code == 0
    held = api.find("NetworkPolicy", "log-ingress", "back")
    assert held is not None
    assert "denylog/expires-at" not in held["metadata"].get("annotations", {})


def test_an_expiry_is_told_only_where_something_was_applied(api: ApiServer) -> None:
    """A server that refuses every patch leaves nothing behind that could expire."""
    api.forbidden |= {("patch", "networkpolicies"), ("patch", "globalnetworkpolicies")}
    refused = run("apply", "--ttl", "24h", "--no-dry-run")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "does not let you patch" in refused.stderr
    assert "expire" not in refused.stderr
    assert "left alone" not in refused.stderr
    api.forbidden.clear()
    assert "they expire at 20" in run("apply", "--ttl", "24h", "--no-dry-run").stderr


def test_prune_says_that_there_is_nothing_to_do(api: ApiServer) -> None:
    """One sentence on standard error: there is no Log policy, or all of them are wanted."""
    none = run("prune", "--no-dry-run")
    assert (none.exit_code, none.stdout) == (0, "")
    assert none.stderr == "nothing to delete: the cluster has no Log policy of denylog\n"
    run("apply", "--ttl", "1h", "--no-dry-run")
    for words, why in (
        (("--expired",), "none of the 4 Log policies of denylog has expired"),
        ((), "none of the 4 Log policies of denylog has expired or would no longer be generated"),
    ):
        kept = run("prune", *words, "--no-dry-run")
        assert (kept.exit_code, kept.stdout) == (0, "")
        assert kept.stderr == f"nothing to delete: {why}\n"


def test_an_expiry_that_cannot_be_read_deletes_nothing(api: ApiServer) -> None:
    """It is told instead."""
    run("apply", "--ttl", "1h", "--no-dry-run")
    held = api.find("NetworkPolicy", "log-ingress", "shop")
    assert held is not None
    held["metadata"]["annotations"]["denylog/expires-at"] = "tomorrow"
    api.put(held, manager="denylog")
    result = run("prune", "--expired", "--no-dry-run")
    assert (result.exit_code, result.stdout, "its expiry cannot be read" in result.stderr) == (0, "", True)


def test_nothing_is_applied_without_a_proof(api: ApiServer) -> None:
    """A policy that allows behind the Log policy: exit code 1, the reason, and not one request that writes."""
    late = _object(CALICO, "NetworkPolicy", "late", "shop", spec={"order": 5000, "selector": "app == 'web'"})
    late["spec"] |= {"types": ["Ingress"], "ingress": [{"action": "Allow", "protocol": "TCP"}]}
    api.put(late)
    for command in (("apply", "--no-dry-run"), ("diff",), ("prune", "--no-dry-run")):
        result = run(*command)
        assert result.exit_code == 1
        assert "has order 5000, after our Log policy" in result.stderr
    assert not [request for request in api.requests if not request.startswith("GET")]
    assert run("apply", "--order", "auto", "--no-dry-run").exit_code == 0


def test_reviewed_files_are_proved_again_before_they_are_applied(api: ApiServer, tmp_path: Path) -> None:
    """Against the cluster as it is now; and only what carries our label is taken."""
    log = tmp_path / "log.yaml"
    log.write_text(run("generate", "--cluster").stdout)
    assert run("apply", str(log), "--no-dry-run").exit_code == 0
    assert run("diff", str(log)).exit_code == 0
    api.remove("NetworkPolicy", "web", "shop")
    refused = run("apply", str(log), "--no-dry-run")
    assert (refused.exit_code, refused.stdout) == (1, "")
    foreign = tmp_path / "foreign.yaml"
    foreign.write_text(yaml.safe_dump(_deny("web", "shop", app="web")))
    result = run("apply", str(foreign), "--no-dry-run")
    assert (result.exit_code, "NetworkPolicy web is no Log policy of denylog" in result.stderr) == (2, True)


def test_a_server_that_cannot_create_by_applying(api: ApiServer) -> None:
    """Calico 3.32.0 answers 404: the object is created, and a later apply meets no conflict with ourselves."""
    api.creates_by_apply = False
    assert run("apply").exit_code == 0
    assert _log(api) == []
    assert run("apply", "--no-dry-run").exit_code == 0
    assert len(_log(api)) == 4
    api.put(_deny("cache", "shop", app="cache"))
    assert run("apply", "--no-dry-run").exit_code == 0
    assert run("diff").exit_code == 0


def test_where_nothing_can_be_applied(api: ApiServer, tmp_path: Path) -> None:
    """No projectcalico.org/v3, no right to write, the eBPF data plane: each has its sentence and no write."""
    before = _state(api)
    denied = run("apply", "--no-dry-run", "--kubeconfig", str(api.kubeconfig(tmp_path / "reader", "reader")))
    assert (denied.exit_code, "does not let you patch" in denied.stderr) == (2, True)
    api.put(_object(CALICO, "FelixConfiguration", "default", spec={"bpfEnabled": True}))
    for command in ("apply", "generate", "felix"):
        ebpf = run(command, *(["--cluster"] if command != "apply" else []))
        assert (ebpf.exit_code, "refused: the eBPF data plane" in ebpf.stderr) == (1, True)
    api.served -= {CALICO}
    missing = run("apply", "--no-dry-run")
    assert (missing.exit_code, "serves no projectcalico.org/v3; install Calico's API server" in missing.stderr) == (
        2,
        True,
    )
    assert [key for key in _state(api) if key in WRITES] == [key for key in before if key in WRITES]


@pytest.mark.parametrize("text", ["soon", "0h", "1", "1h2", "-1h", ""])
def test_a_length_of_time_that_is_none(text: str) -> None:
    """One sentence, exit code 2, no request."""
    result = run("apply", "--ttl", text)
    assert (result.exit_code, "is no length of time" in result.stderr) == (2, True)
