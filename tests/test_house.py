"""The house as a newcomer finds it: make's answers, the locks, what a built package holds."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
ADDRESS = re.compile(r"://|--(extra-)?index-url|--find-links|--trusted-host|^-[if]\b", re.MULTILINE)


def read_pins(lock: Path) -> dict[str, str]:
    """Package -> version of a lock file."""
    return dict(re.findall(r"^([a-z0-9._-]+)==([^\s;\\]+)", lock.read_text(encoding="utf-8"), re.MULTILINE))


def run_make(target: str, path: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`make TARGET` with PATH set to `path`, so that it finds just the Pythons put there."""
    make = shutil.which("make")
    assert make is not None
    settings = [f"{name}={value}" for name, value in variables.items()]
    return subprocess.run(
        [make, "--dry-run", "--always-make", target, *settings],
        cwd=ROOT,
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def write_python(folder: Path, name: str, script: str) -> None:
    """A stand-in for a Python that a machine might have."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder with what make's recipes use, and no Python."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("bash", "sh", "touch", "sed"):
        found = shutil.which(name)
        assert found is not None
        os.symlink(found, folder / name)
    return folder


def sentences(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What make said, without its own `Makefile:12: ***` and `Stop.`"""
    assert done.returncode != 0
    return [re.sub(r"^Makefile:\d+: \*\*\* |\.  Stop\.$", "", line) for line in done.stderr.splitlines()]


def test_no_python_gets_one_sentence_with_the_remedy(tools: Path) -> None:
    assert sentences(run_make("serve", str(tools))) == [
        "Python 3.11 was not found: install it and run make again, "
        "or name it with 'make PYTHON=/path/to/python3.11'"
    ]


def test_another_python_on_the_path_is_passed_over(tools: Path) -> None:
    write_python(tools, "python3", "exit 1")
    assert "Python 3.11 was not found" in sentences(run_make("serve", str(tools)))[0]


def test_a_named_python_of_another_version_is_refused(tools: Path) -> None:
    write_python(tools, "python3.9", "echo False")
    [sentence] = sentences(run_make("serve", str(tools), PYTHON="python3.9"))
    assert sentence == "python3.9 is not Python 3.11: name one that is with 'make PYTHON=/path/to/python3.11'"


def test_a_missing_venv_module_gets_one_sentence_with_the_remedy(tools: Path) -> None:
    write_python(tools, "python3.11", 'case "$2" in *venv*) exit 1;; *print*) echo True;; esac')
    [sentence] = sentences(run_make("serve", str(tools)))
    assert sentence == (
        "python3.11 lacks the venv module: install it "
        "('apt install python3.11-venv' on Debian and Ubuntu) and run make again"
    )


def test_a_whole_python_passes_the_checks(tools: Path) -> None:
    write_python(tools, "python3.11", "echo True")
    done = run_make("serve", str(tools))
    assert done.returncode == 0, done.stderr
    assert "python3.11 -m venv --clear .venv-serve" in done.stdout


def test_help_lists_every_target_that_is_meant_for_people(tools: Path) -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.findall(r"^\.PHONY: ([a-z-]+)$", text, re.MULTILINE))
    explained = set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))
    assert phony == explained
    assert {"serve", "test", "test-service", "lint", "types", "lock"} <= phony


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_names_no_address(lock: Path) -> None:
    assert not ADDRESS.findall(lock.read_text(encoding="utf-8"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_pins_every_package_with_a_hash(lock: Path) -> None:
    blocks = re.split(r"\n(?=[a-z0-9])", lock.read_text(encoding="utf-8").strip())
    assert len(blocks) == len(read_pins(lock))
    assert all("--hash=sha256:" in block for block in blocks)


@pytest.mark.parametrize("name", ["serve.txt", "test-service.txt", "gpu.txt", "ray.txt"])
def test_locks_agree_on_versions(name: str) -> None:
    everything = read_pins(ROOT / "requirements/dev.txt")
    pins = read_pins(ROOT / "requirements" / name)
    assert {package: everything.get(package, version) for package, version in pins.items()} == pins


@pytest.mark.parametrize("name", ["serve.txt", "test-service.txt"])
def test_the_service_locks_leave_torch_out(name: str) -> None:
    assert not {"torch", "torchvision", "onnx", "tensorboard"} & set(read_pins(ROOT / "requirements" / name))


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("serve.txt", ["client", "serve"]),
        ("test-service.txt", ["client", "serve", "test"]),
        ("gpu.txt", ["client", "serve", "gpu"]),
        ("ray.txt", ["client", "serve", "ray"]),
        ("dev.txt", ["client", "serve", "test", "train", "dev"]),
    ],
)
def test_a_lock_holds_what_pyproject_asks_for(lock: str, extras: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = project["dependencies"] + [
        one for extra in extras for one in project["optional-dependencies"][extra]
    ]
    names = {re.split(r"[\[<>=; ]", one)[0] for one in asked} - {project["name"]}
    missing = names - set(read_pins(ROOT / "requirements" / lock))
    assert not missing, f"{lock} lacks {sorted(missing)}: run `make lock`"
