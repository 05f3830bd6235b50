"""Write the Python code of every proto file into a folder, service/pb unless another is named.

`make proto` runs it; tests/service/test_pb.py runs it into an empty folder and compares.
"""

import re
import sys
import sysconfig
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent
DEFAULT_FOLDER = PROTO.parent / "service" / "pb"
SCRIPTS = sysconfig.get_path("scripts")


def generate_code(folder: Path) -> None:
    """Compile each proto under its own path, so descriptors carry it, and lay the code flat in `folder`."""
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        outputs = [f"--{kind}_out={scratch}" for kind in ("python", "grpc_python")]
        stubs = [f"--{kind}_out=quiet:{scratch}" for kind in ("mypy", "mypy_grpc")]
        plugins = [f"--plugin={SCRIPTS}/protoc-gen-{kind}" for kind in ("mypy", "mypy_grpc")]
        include = str(files("grpc_tools") / "_proto")
        code = protoc.main(["protoc", f"-I{PROTO}", f"-I{include}", *plugins, *outputs, *stubs, *sources])
        if code:
            raise SystemExit(code)
        for path in sorted(Path(scratch).rglob("*_pb2*")):
            folder.joinpath(path.name).write_text(_move_imports(path.read_text("utf-8")), "utf-8")


def _move_imports(code: str) -> str:
    """The compiler imports a message by its proto's folder (resnet.v1); here it is in service.pb."""
    code = re.sub(r"^from [a-z0-9.]+ import (\w+_pb2)\b", r"from service.pb import \1", code, flags=re.M)
    return re.sub(r"(?<!google\.protobuf\.)\b(?:resnet\.v1|inference)\.(\w+_pb2)\b", r"service.pb.\1", code)


if __name__ == "__main__":
    generate_code(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FOLDER)
