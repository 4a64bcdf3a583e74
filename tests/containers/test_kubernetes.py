"""Checks the Kubernetes manifests by Kubernetes' own schema, and what they promise, without a cluster."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from benchmarks.patience import HANG_S
from peer.ending import LEAVE_S

FOLDER = Path(__file__).parent.parent.parent / "deploy" / "kubernetes"
BASE, GPU = FOLDER / "base", FOLDER / "gpu"
OLDEST_CHECKED = "1.30.0"


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def pod(statefulset: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a StatefulSet's pod and its one container."""
    spec = statefulset["spec"]["template"]["spec"]
    [container] = spec["containers"]
    return spec, container


def test_each_file_is_named_and_follows_the_schema() -> None:
    names = read(BASE / "kustomization.yaml")["resources"]
    assert {path.name for path in BASE.glob("*.yaml")} == {*names, "kustomization.yaml"}
    for name in names:
        for version in (OLDEST_CHECKED, kubernetes_validate.latest_version()):
            kubernetes_validate.validate(read(BASE / name), version, strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl here, which has kustomize in it")
@pytest.mark.parametrize("folder", [BASE, GPU])
def test_what_kustomize_makes_of_them_follows_the_schema(folder: Path) -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=HANG_S, check=True
    )
    made = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
    assert set(made) == {"Service", "StatefulSet", "PodDisruptionBudget"}
    for each in made.values():
        kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)
    spec, container = pod(made["StatefulSet"])
    is_gpu = folder == GPU
    assert container["image"] == ("shoal:cuda" if is_gpu else "shoal:latest")
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) is is_gpu
    assert len(spec["volumes"]) == 2 and container["command"][:2] == ["sh", "-euc"]


def test_names_agree() -> None:
    service, statefulset = read(BASE / "service.yaml"), read(BASE / "statefulset.yaml")
    labels = statefulset["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == statefulset["spec"]["selector"]["matchLabels"] == labels
    assert read(BASE / "disruption.yaml")["spec"]["selector"]["matchLabels"] == labels
    assert statefulset["spec"]["serviceName"] == service["metadata"]["name"]
    spec, container = pod(statefulset)
    claims = statefulset["spec"]["volumeClaimTemplates"]
    volumes = {each["name"] for each in spec["volumes"]} | {each["metadata"]["name"] for each in claims}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {port["name"]: port["port"] for port in service["spec"]["ports"]}
    assert service["spec"]["publishNotReadyAddresses"] and service["spec"]["clusterIP"] == "None"


def test_a_peer_has_time_to_leave_and_is_not_restarted_for_being_unwell() -> None:
    spec, container = pod(read(BASE / "statefulset.yaml"))
    assert spec["terminationGracePeriodSeconds"] > LEAVE_S
    probes = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert probes == {"startup": "/live", "liveness": "/live", "readiness": "/health"}


def test_a_peer_has_no_rights_that_it_does_not_need() -> None:
    spec, container = pod(read(BASE / "statefulset.yaml"))
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 1000
    assert not spec["automountServiceAccountToken"]
    rights = container["securityContext"]
    assert rights["readOnlyRootFilesystem"] and not rights["allowPrivilegeEscalation"]
    assert rights["capabilities"] == {"drop": ["ALL"]}
