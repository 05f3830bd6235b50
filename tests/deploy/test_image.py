"""The Dockerfile and the compose file keep their promises, as far as they can be read off."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
STAGES = re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ["resnet", "resnet-b", "resnet-gpu"]


def test_the_last_stage_is_the_cpu_image() -> None:
    assert STAGES[-1] == ("runtime", "cpu")


def test_every_stage_stands_on_the_one_base_that_takes_a_digest() -> None:
    names = {name for _, name in STAGES}
    assert [origin for origin, _ in STAGES if origin not in names] == ["${BASE}"]


def test_no_frontend_is_pulled() -> None:
    assert not re.search(r"^#\s*syntax\s*=", DOCKERFILE, re.MULTILINE | re.IGNORECASE)


def test_the_image_runs_as_a_user_that_kubernetes_can_tell_from_root() -> None:
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]


def test_packages_come_from_locks_alone() -> None:
    installs = re.findall(r"\binstall\b[^\n]*", DOCKERFILE)
    assert installs
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)


def test_the_image_is_labelled_with_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"ARG VERSION={project['version']}\n" in DOCKERFILE
    for label in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in DOCKERFILE


def test_the_builder_receives_what_the_dockerfile_copies() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    for name in " ".join(copied).split():
        assert name in sent or re.sub(r"/[^/]+\.txt$", "/*.txt", name) in sent


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_alone(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_only_the_service_itself_starts_without_a_profile() -> None:
    assert [name for name, one in SERVICES.items() if "profiles" not in one] == ["resnet"]
    assert {profile for one in SERVICES.values() for profile in one.get("profiles", [])} == {
        "edge",
        "gpu",
        "monitoring",
    }


@pytest.mark.parametrize("name", OURS)
def test_our_containers_are_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]


def test_what_a_container_mounts_from_the_project_exists() -> None:
    mounts = [mount.split(":")[0] for one in SERVICES.values() for mount in one.get("volumes", [])]
    assert all((ROOT / source).is_dir() for source in mounts if source.startswith("./"))


def test_the_edge_knows_every_replica() -> None:
    edge = (ROOT / "deploy/edge/haproxy.cfg").read_text(encoding="utf-8")
    servers = set(re.findall(r"^\s+server \S+ (\S+):\d+", edge, re.MULTILINE))
    assert servers == {"resnet", "resnet-b"} == set(SERVICES["edge"]["depends_on"])
