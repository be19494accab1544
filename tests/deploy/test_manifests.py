"""The Kubernetes manifests: they build, the API accepts them, and they grant and run what the code has."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest

from policies.resources import OWNERS, READS, SERVED, TIER_GUARDS
from tests.deploy.manifests import BASES, DEPLOY, REPOSITORY, build, containers, everything, only, parsed, pods

VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]


@pytest.mark.parametrize("name", BASES)
def test_schema(name: str) -> None:
    """Every object of every base is what the current Kubernetes API describes, to the last field."""
    objects = build(name)
    assert objects
    for entry in objects:
        kubernetes_validate.validate(entry, kubernetes_validate.latest_version(), strict=True)


def test_every_file_is_built() -> None:
    """No manifest lies in a folder without being part of its base."""
    for name in BASES:
        text = (DEPLOY / name / "kustomization.yaml").read_text()
        files = {path.name for path in (DEPLOY / name).glob("*.yaml")} - {"kustomization.yaml"}
        assert files == {file for file in files if re.search(rf"^ +- (path: )?{re.escape(file)}$", text, re.M)}


def test_rights_are_what_the_code_reads() -> None:
    """The ClusterRole grants get, list and watch on exactly what the code reads, and nothing else on anything."""
    granted = {
        (group, resource, verb)
        for rule in only(build("daemonset"), "ClusterRole")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    wanted = {(entry.group, entry.plural, verb) for entry in (*READS, *OWNERS) for verb in entry.verbs}
    wanted |= {(SERVED, name, verb) for name in TIER_GUARDS for verb in ("get", "list", "watch")}
    assert granted == wanted


def test_rights_go_to_one_account() -> None:
    """The role is bound to the collector's own account alone, and no other pod mounts a token."""
    objects = build("daemonset")
    binding, account = only(objects, "ClusterRoleBinding"), only(objects, "ServiceAccount")["metadata"]
    assert [(entry["name"], entry["namespace"]) for entry in binding["subjects"]] == [(account["name"], "denylog")]
    assert binding["roleRef"]["name"] == only(objects, "ClusterRole")["metadata"]["name"]
    users = [name for name, pod in pods(everything()) if "serviceAccountName" in pod]
    assert set(users) == {"DaemonSet/denylog"}
    assert all(pod["automountServiceAccountToken"] is False for name, pod in pods(everything()) if "denylog" in name)


def test_command_lines_are_real() -> None:
    """The command line takes the arguments of every container as they are."""
    seen = 0
    for _, pod in pods(everything()):
        for container in containers(pod):
            if "args" in container:
                parsed(container["args"])
                seen += 1
    assert seen >= 2


def test_image_is_this_version() -> None:
    """All containers run the image of the version in pyproject.toml."""
    images = {container["image"] for _, pod in pods(everything()) for container in containers(pod)}
    assert f"denylog:{VERSION}" in images
    assert images <= {f"denylog:{VERSION}", f"denylog:{VERSION}-journal"}
    assert f"denylog:{VERSION} ." in (DEPLOY / "Dockerfile").read_text()


def test_containers_are_confined() -> None:
    """No container may gain rights, write to its root file system or keep a capability; only one runs as root."""
    roots = []
    for name, pod in pods(everything()):
        for container in containers(pod):
            found = {**pod.get("securityContext", {}), **container["securityContext"]}
            added = found["capabilities"].get("add", [])
            roots += [(name, container["name"], added)] if found["runAsUser"] == 0 else []
            assert found["runAsNonRoot"] is (found["runAsUser"] != 0)
            assert found["allowPrivilegeEscalation"] is False
            assert found["readOnlyRootFilesystem"] is True
            assert found["capabilities"]["drop"] == ["ALL"]
            assert found["seccompProfile"] == {"type": "RuntimeDefault"}
            assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
    assert set(map(str, roots)) == {str(("DaemonSet/denylog", "state", ["CHOWN"]))}


def test_log_is_read_only_and_a_folder() -> None:
    """The node's log is mounted as a read-only folder, so that a rotation is seen; the state is a mount of its own."""
    pod = only(build("daemonset"), "DaemonSet")["spec"]["template"]["spec"]
    volumes = {entry["name"]: entry.get("hostPath") for entry in pod["volumes"]}
    assert volumes["logs"] == {"path": "/var/log", "type": "Directory"}
    assert volumes["state"] == {"path": "/var/lib/denylog", "type": "DirectoryOrCreate"}
    (collect,) = (entry for entry in pod["containers"] if entry["name"] == "collect")
    mounts = {entry["name"]: (entry["mountPath"], entry.get("readOnly", False)) for entry in collect["volumeMounts"]}
    assert mounts["logs"] == ("/var/log", True)
    assert mounts["state"] == ("/var/lib/denylog", False)
    assert pod["securityContext"]["supplementalGroups"] == [4]


def test_only_the_inventory_has_the_token() -> None:
    """Of the collector's pod only the container that asks the API server mounts the account's token."""
    pod = only(build("daemonset"), "DaemonSet")["spec"]["template"]["spec"]
    (token,) = (entry["name"] for entry in pod["volumes"] if "projected" in entry)
    holders = [entry["name"] for entry in containers(pod) if token in {m["name"] for m in entry["volumeMounts"]}]
    assert holders == ["inventory"]


def test_dashboard_only_reads() -> None:
    """The dashboard's pod mounts the store read-only, takes its password from a Secret and has no account's token."""
    pod = only(build("dashboard"), "Deployment")["spec"]["template"]["spec"]
    (dashboard,) = pod["containers"]
    mounts = {entry["name"]: entry.get("readOnly", False) for entry in dashboard["volumeMounts"]}
    assert mounts == {"state": True, "password": True, "tmp": False}
    assert not [argument for argument in dashboard["args"] if argument.startswith("--password=")]


def test_probes_and_ports_meet() -> None:
    """Probes, the Service and the NetworkPolicies name ports that the containers listen on."""
    for _, pod in pods(everything()):
        for container in containers(pod):
            ports = {entry["name"]: entry["containerPort"] for entry in container.get("ports", ())}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if probe in container:
                    assert container[probe]["httpGet"]["port"] in ports
            listens = [argument for argument in container.get("args", ()) if re.match(r"--(metrics|port)=", argument)]
            assert [int(re.split("[:=]", argument)[-1]) for argument in listens] == list(ports.values())
    for name, port in (("daemonset", 9843), ("dashboard", 8501)):
        policy = only(build(name), "NetworkPolicy")["spec"]
        assert [entry["port"] for rule in policy["ingress"] for entry in rule["ports"]] == [port]


@pytest.mark.parametrize("name", ["daemonset", "dashboard"])
def test_selectors_meet(name: str) -> None:
    """The NetworkPolicy and the Service select the pods of their workload, and not those of the other one."""
    objects = build(name)
    (workload,) = (entry for entry in objects if entry["kind"] in ("DaemonSet", "Deployment"))
    carried = workload["spec"]["template"]["metadata"]["labels"]
    wanted: list[dict[str, Any]] = [workload["spec"]["selector"]["matchLabels"]]
    wanted += [entry["spec"]["podSelector"]["matchLabels"] for entry in objects if entry["kind"] == "NetworkPolicy"]
    wanted += [entry["spec"]["selector"] for entry in objects if entry["kind"] == "Service"]
    assert all(selector.items() <= carried.items() for selector in wanted)
    assert all("app.kubernetes.io/component" in selector for selector in wanted)


def test_namespace_says_what_it_allows() -> None:
    """The namespace allows hostPath, which nothing but the privileged profile does, and warns of the rest."""
    labels = only(build("daemonset"), "Namespace")["metadata"]["labels"]
    found = {key.rpartition("/")[2]: value for key, value in labels.items() if key.startswith("pod-security")}
    assert found == {"enforce": "privileged", "audit": "restricted", "warn": "restricted"}


def test_runs_everywhere() -> None:
    """The collector tolerates every taint, is not evicted first, and never surges: a store has one writer."""
    objects = build("daemonset")
    spec = only(objects, "DaemonSet")["spec"]
    assert spec["template"]["spec"]["tolerations"] == [{"operator": "Exists"}]
    assert spec["template"]["spec"]["priorityClassName"] == only(objects, "PriorityClass")["metadata"]["name"]
    assert spec["updateStrategy"]["rollingUpdate"]["maxSurge"] == 0
