"""service/pb is what proto/ says, byte for byte."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PB = ROOT / "service" / "pb"


def test_generated_code_is_fresh(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    subprocess.run([sys.executable, ROOT / "proto" / "generate.py", tmp_path], check=True)
    fresh = {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text("utf-8") for path in PB.glob("*_pb2*") if path.is_file()}
    assert sorted(fresh) == sorted(committed)
    assert [name for name in fresh if fresh[name] != committed[name]] == [], "run `make proto`"


@pytest.mark.parametrize("proto", sorted((ROOT / "proto").rglob("*.proto")), ids=lambda path: path.name)
def test_a_proto_explains_every_call(proto: Path) -> None:
    lines = proto.read_text("utf-8").splitlines()
    calls = [number for number, line in enumerate(lines) if line.strip().startswith(("rpc ", "service "))]
    assert calls
    assert [lines[at].strip() for at in calls if not lines[at - 1].strip().startswith("//")] == []
