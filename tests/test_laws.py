"""The laws between rooms that import contracts cannot express; see docs/architecture.md."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
READERS = {"environ", "environb", "getenv", "getenvb"}
PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
PICKLING_PARTS_OF_MULTIPROCESSING = {
    "Queue",
    "SimpleQueue",
    "Pipe",
    "Pool",
    "Manager",
    "connection",
    "managers",
}

# Blocks every package that is not in requirements/serve.txt, torch above all, as if it were absent; then
# imports the service and what it uses of models. Modules in SKIPPED are imported where a process needs them.
IMPORT_AS_SERVED = """
import importlib, importlib.abc, pkgutil, re, sys
from importlib.metadata import packages_distributions
SKIPPED = ("models.networks", "models.checkpoints", "models.engines.torch", "models.__main__", "models.cli")
locked = set(re.findall(r"^([a-z0-9.-]+)==", open("requirements/serve.txt").read(), re.M))
ABSENT = {
    module
    for module, distributions in packages_distributions().items()
    if not locked & {re.sub(r"[-_.]+", "-", name).lower() for name in distributions}
} | {"torch", "torchvision", "onnx", "onnxscript", "training"}

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT - {"models", "service"}:
            raise ModuleNotFoundError(f"{name} is not there", name=name)

sys.meta_path.insert(0, Blocked())
names = ["models", "service"]
for package in [importlib.import_module(name) for name in names]:
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not info.name.startswith(SKIPPED):
            importlib.import_module(info.name)
            names.append(info.name)
print(len(names))
"""


def list_sources(*rooms: str) -> list[Path]:
    """The Python files of `rooms`, relative to the root."""
    return sorted(path.relative_to(ROOT) for room in rooms for path in (ROOT / room).rglob("*.py"))


def find_environment_reads(tree: ast.AST) -> Iterator[int]:
    """Lines that read the environment; writing one variable for a library (`os.environ[x] = y`) is none."""
    written = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in READERS:
            if id(node) not in written:
                yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            names = {alias.name for alias in node.names}
            if names & READERS:
                yield node.lineno


def find_unpickling(tree: ast.AST) -> Iterator[int]:
    """Lines that unpickle, or could: pickle and its kin, multiprocessing's channels, some loaders."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            if {alias.name.split(".")[0] for alias in node.names} & PICKLERS:
                yield node.lineno
        elif isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            top = (node.module or "").split(".")[0]
            names -= {"PickleError", "UnpicklingError"}  # to catch what torch.load raises
            if (top in PICKLERS and names) or (
                top == "multiprocessing" and names & PICKLING_PARTS_OF_MULTIPROCESSING
            ):
                yield node.lineno
        elif isinstance(node, ast.Attribute):
            if (
                node.attr in PICKLING_PARTS_OF_MULTIPROCESSING
                and ast.unparse(node.value) == "multiprocessing"
            ):
                yield node.lineno
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called == "torch.load" and given.get("weights_only") != "True":
                yield node.lineno
            if called in {"np.load", "numpy.load"} and given.get("allow_pickle", "False") != "False":
                yield node.lineno


@pytest.mark.parametrize("path", list_sources("models", "service"), ids=str)
def test_only_settings_reads_the_environment(path: Path) -> None:
    if path == Path("service/settings.py"):
        return
    lines = list(find_environment_reads(ast.parse((ROOT / path).read_text(encoding="utf-8"))))
    assert not lines, f"{path} reads the environment on lines {lines}; add a setting to service/settings.py"


@pytest.mark.parametrize("path", list_sources("models", "service", "training"), ids=str)
def test_nothing_unpickles(path: Path) -> None:
    lines = list(find_unpickling(ast.parse((ROOT / path).read_text(encoding="utf-8"))))
    assert not lines, f"{path} could run code from a pickle on lines {lines}"


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.environ['A']",
        "import os\nos.getenv('A')",
        "from os import environ",
        "import os as o\no.environ.get('A')",
    ],
    ids=["by subscript", "by getenv", "by name", "by alias"],
)
def test_a_read_of_the_environment_is_found(source: str) -> None:
    assert list(find_environment_reads(ast.parse(source)))


def test_a_write_to_the_environment_is_no_read() -> None:
    assert not list(find_environment_reads(ast.parse("import os\nos.environ['A'] = 'b'")))


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import multiprocessing\nmultiprocessing.Queue()",
        "from multiprocessing.connection import Pipe",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
    ],
    ids=[
        "pickle",
        "pickle by name",
        "a queue of processes",
        "a pipe of processes",
        "torch.load",
        "numpy.load",
    ],
)
def test_an_unpickling_is_found(source: str) -> None:
    assert list(find_unpickling(ast.parse(source)))


def test_the_service_imports_where_only_its_lock_is_installed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_AS_SERVED], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


@pytest.mark.parametrize(
    ("imports", "absent"),
    [
        ("import service.supervisor", "fastapi starlette uvicorn grpc onnxruntime PIL simplejpeg torch"),
        (
            "import service.frontend, service.protocols; from models.catalog import find_modules; "
            "find_modules(service.protocols)",
            "onnxruntime PIL simplejpeg torch",
        ),
        (
            "import service.client, service.client.rpc, service.client.load, service.client.load_rpc",
            "fastapi fsspec httptools msgspec onnxruntime prometheus_client pyarrow "
            "python_multipart simplejpeg sqlalchemy starlette torch uvicorn uvloop",
        ),
    ],
    ids=[
        "the supervisor loads no protocol and no engine",
        "a frontend never touches a pixel",
        "the client loads nothing of the server",
    ],
)
def test_a_process_loads_only_what_it_runs(imports: str, absent: str) -> None:
    loaded = f"import sys; print(*sorted(set({absent.split()!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"{imports}; {loaded}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
