"""The Kubernetes manifests hold against the API's schemas, and keep what the daemon promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.tools import ROOT, find_tool, run_tool

FILES = sorted((ROOT / "deploy" / "kubernetes").glob("*.yml"))
by_name = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


def documents(path: Path) -> list[dict[str, Any]]:
    """The manifests in one file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def daemons() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(pod specification, container) of each place that runs the daemon."""
    return [
        (pod, container)
        for path in FILES
        for document in documents(path)
        if document["kind"] == "Deployment"
        for pod in [document["spec"]["template"]["spec"]]
        for container in [*pod.get("initContainers", []), *pod["containers"]]
        if container["name"] == "invalidator"
    ]


@by_name
def test_the_manifests_are_valid(path: Path) -> None:
    result = run_tool(find_tool("kubernetes-validate", "kubernetes-validate"), "--strict", path)

    assert result.returncode == 0, result.stdout


def test_the_validator_would_find_a_misspelled_field(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "kubernetes" / "deployment.yml").read_text()
    bad = tmp_path / "bad.yml"
    bad.write_text(text.replace("readOnlyRootFilesystem", "readOnlyRootFileSystem"))

    assert run_tool(find_tool("kubernetes-validate", "kubernetes-validate"), "--strict", bad).returncode != 0


def test_the_daemon_runs_as_nobody_who_may_do_anything() -> None:
    found = daemons()

    assert len(found) == 2
    for pod, container in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_a_second_replica_stands_by_and_one_is_always_left() -> None:
    found = {document["kind"]: document for document in documents(ROOT / "deploy/kubernetes/deployment.yml")}
    spec = found["Deployment"]["spec"]

    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert found["PodDisruptionBudget"]["spec"]["minAvailable"] == 1


def test_labels_that_select_are_on_the_pods() -> None:
    found = {document["kind"]: document for document in documents(ROOT / "deploy/kubernetes/deployment.yml")}
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
    ]

    assert all(selector.items() <= labels.items() for selector in selectors)


def test_the_daemon_is_asked_at_the_paths_that_answer_and_has_time_to_end() -> None:
    settings = next(
        yaml.safe_load(document["data"]["settings.yaml"])
        for document in documents(ROOT / "deploy/kubernetes/deployment.yml")
        if document["kind"] == "ConfigMap"
    )

    for pod, container in daemons():
        assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
        assert container["startupProbe"]["httpGet"]["path"] == "/readyz"
        assert pod["terminationGracePeriodSeconds"] > settings["shutdown"]["grace_seconds"]


def test_every_mounted_secret_and_configuration_is_in_the_examples() -> None:
    names = {(document["kind"], document["metadata"]["name"]) for path in FILES for document in documents(path)}
    secret = next(document for path in FILES for document in documents(path) if document["kind"] == "Secret")

    for pod, container in daemons():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for mount in container["volumeMounts"]:
            volume = volumes[mount["name"]]
            kind, name = (
                ("Secret", volume["secret"]["secretName"])
                if "secret" in volume
                else ("ConfigMap", volume["configMap"]["name"])
            )
            assert (kind, name) in names
        files = [entry["value"] for entry in container["env"] if entry["name"].endswith("_FILE")]
        assert {Path(file).name for file in files} <= set(secret["stringData"])
