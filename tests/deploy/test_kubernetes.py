"""The manifests are valid by the published schemas, and what they promise each other holds.

Written and validated, not deployed: no cluster was at hand.
"""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.settings import PREFIX, Settings

KUBERNETES = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
OVERLAYS = ["overlays/cpu", "overlays/gpu"]
VERSION = "1.33"
Manifest = dict[str, Any]


def read_yaml(path: Path) -> Manifest:
    """One document."""
    loaded: Manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def apply_operation(manifest: Manifest, operation: Manifest) -> None:
    """One `add` or `replace` of a JSON patch (RFC 6902); raises KeyError where nothing is to replace."""
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    target: Any = manifest
    for part in parents:
        target = target[int(part)] if isinstance(target, list) else target[part]
    if operation["op"] == "replace":
        assert target[last] is not None
    target[last] = operation["value"]


def render(folder: Path) -> list[Manifest]:
    """What kustomize makes of a folder, for what is used here: resources, labels, images, JSON patches."""
    kustomization = read_yaml(folder / "kustomization.yaml")
    known = {"apiVersion", "kind", "resources", "labels", "images", "patches"}
    assert set(kustomization) <= known
    manifests: list[Manifest] = []
    for name in kustomization["resources"]:
        path = folder / name
        manifests += render(path) if path.is_dir() else [read_yaml(path)]
    manifests = copy.deepcopy(manifests)
    for patch in kustomization.get("patches", []):
        found = [
            one
            for one in manifests
            if (one["kind"], one["metadata"]["name"]) == (patch["target"]["kind"], patch["target"]["name"])
        ]
        assert len(found) == 1, patch["target"]
        for operation in yaml.safe_load(patch["patch"]):
            apply_operation(found[0], operation)
    return manifests


def pick(manifests: list[Manifest], kind: str) -> Manifest:
    """The only manifest of its kind."""
    [found] = [one for one in manifests if one["kind"] == kind]
    return found


def container(manifests: list[Manifest]) -> Manifest:
    """The server's container."""
    [found] = pick(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_is_valid_by_the_published_schemas(overlay: str) -> None:
    manifests = render(KUBERNETES / overlay)
    assert {one["kind"] for one in manifests} == {
        "ServiceAccount",
        "ConfigMap",
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
    }
    for manifest in manifests:
        kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_the_schemas_refuse_a_misspelt_field() -> None:
    manifest = pick(render(KUBERNETES / "base"), "Deployment")
    manifest["spec"]["replica"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_every_file_of_the_base_is_listed() -> None:
    files = {path.name for path in (KUBERNETES / "base").glob("*.yaml")} - {"kustomization.yaml"}
    assert set(read_yaml(KUBERNETES / "base/kustomization.yaml")["resources"]) == files


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_settings_in_the_config_map_exist(overlay: str) -> None:
    known = {PREFIX + one.name.upper() for one in dataclasses.fields(Settings)}
    assert set(pick(render(KUBERNETES / overlay), "ConfigMap")["data"]) <= known


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_has_time_to_finish_what_it_accepted(overlay: str) -> None:
    manifests = render(KUBERNETES / overlay)
    pod = pick(manifests, "Deployment")["spec"]["template"]["spec"]
    drain_s = float(pick(manifests, "ConfigMap")["data"]["SERVE_DRAIN_TIMEOUT"])
    pause_s = float(container(manifests)["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > pause_s + drain_s


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_is_confined(overlay: str) -> None:
    manifests = render(KUBERNETES / overlay)
    pod = pick(manifests, "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"]
    context = container(manifests)["securityContext"]
    assert context["readOnlyRootFilesystem"]
    assert not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_and_policy_name_ports_that_the_pod_has(overlay: str) -> None:
    manifests = render(KUBERNETES / overlay)
    ports = {one["name"] for one in container(manifests)["ports"]}
    services = [one for one in manifests if one["kind"] == "Service"]
    assert {port["targetPort"] for one in services for port in one["spec"]["ports"]} == ports
    [rule] = pick(manifests, "NetworkPolicy")["spec"]["ingress"]
    assert {port["port"] for port in rule["ports"]} == ports


def test_grpc_clients_can_balance_over_all_pods() -> None:
    services = {
        one["metadata"]["name"]: one for one in render(KUBERNETES / "base") if one["kind"] == "Service"
    }
    assert services["resnet-serve-grpc"]["spec"]["clusterIP"] == "None"


def test_the_gpu_overlay_asks_for_a_gpu_and_the_cpu_one_does_not() -> None:
    limits = {name: container(render(KUBERNETES / name))["resources"]["limits"] for name in OVERLAYS}
    assert limits["overlays/gpu"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in limits["overlays/cpu"]
