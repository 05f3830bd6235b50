"""What the Ray pipeline does on each machine, and its manifest; Ray itself is in test_ray_cluster.py."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import kubernetes_validate
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from deploy.ray.plan import PLAN, Ask, Plan, make_plan, name_part
from deploy.ray.shards import ShardScorer, Shift
from deploy.ray.storage import StoreFolder
from service.errors import BadRequest, Conflict
from service.offline.model import find_version
from service.protocols.options import parse_options
from service.settings import load_settings
from tests.service.offline.pictures import make_pictures, write_pictures
from tests.test_house import read_pins

ROOT = Path(__file__).resolve().parents[2]
RAY = ROOT / "deploy" / "ray"
PICTURES = {**make_pictures(45), "0007.png": b"\x89PNG\r\n\x1a\nbroken"}


def ask_for(source: str, shard_images: int = 20) -> Ask:
    """The default model with the options that nobody gave."""
    digest = find_version(load_settings({}, {}), "").digest
    return Ask(source, digest, parse_options({"top_k": "5"}), shard_images)


def score_all(plan: Plan, out: str) -> list[int]:
    """Every shard on this machine; returns how many images each had."""
    scorer = ShardScorer(Shift(out, {}, threads=2))
    return [scorer.score(shard).images for shard in range(plan.shards)]


def read_parts(out: str) -> pa.Table:
    """The rows of every part, in order."""
    store, path = fsspec.core.url_to_fs(out)
    names = sorted(name for name in store.find(path) if "/part-" in name)
    return pa.concat_tables([pq.read_table(store.open(name, "rb")) for name in names])


def score_alone(folder: Path, out: Path) -> pa.Table:
    """What `resnet-serve batch` makes of it."""
    command = [sys.executable, "-m", "service", "batch", str(folder), "--out", str(out)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1
    return pq.read_table(out)


def write_parquet(folder: Path) -> Path:
    """The pictures in two files of three row groups, as data sets of images are published."""
    folder.mkdir()
    names = list(PICTURES)
    for number, some in enumerate((names[:30], names[30:])):
        images = [{"bytes": PICTURES[name], "path": name} for name in some]
        table = pa.table({"id": some, "image": images, "label": [0] * len(some)})
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=15)
    return folder


def test_folders_stores_and_parquet_give_the_rows_of_one_machine(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", PICTURES)
    alone = score_alone(folder, tmp_path / "alone.parquet")
    files = str(tmp_path / "files")
    assert score_all(make_plan(ask_for(str(folder)), StoreFolder(files)), files) == [20, 20, 5]
    assert read_parts(files).equals(alone)
    store = fsspec.filesystem("memory")
    for name, data in PICTURES.items():
        store.pipe_file(f"/ray-trial/in/{name}", data)
    out = "memory://ray-trial/out"
    assert score_all(make_plan(ask_for("memory://ray-trial/in"), StoreFolder(out)), out) == [20, 20, 5]
    assert read_parts(out).equals(alone)
    tables = str(tmp_path / "tables")
    plan = make_plan(ask_for(str(write_parquet(tmp_path / "parquet"))), StoreFolder(tables))
    assert score_all(plan, tables) == [30, 15]  # a row group is never cut in two
    assert read_parts(tables).equals(alone)


def test_a_plan_stays_what_it_was_when_the_source_grows(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", PICTURES)
    out = StoreFolder(str(tmp_path / "out"))
    ask = ask_for(str(folder))
    begun = make_plan(ask, out)
    write_pictures(folder, {"0000a.png": PICTURES["0000.png"]})
    again = make_plan(ask, out)
    assert [again.read_shard(n) for n in range(again.shards)] == [
        begun.read_shard(n) for n in range(begun.shards)
    ]


def test_an_out_is_not_mixed_with_another_run(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", {"a.png": PICTURES["0000.png"]})
    out = StoreFolder(str(tmp_path / "out"))
    make_plan(ask_for(str(folder)), out)
    with pytest.raises(Conflict, match="was begun with another"):
        make_plan(ask_for(str(folder), shard_images=7), out)


def test_a_source_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    out = StoreFolder(str(tmp_path / "out"))
    with pytest.raises(BadRequest, match="neither Parquet nor images"):
        make_plan(ask_for(str(tmp_path / "empty")), out)
    assert out.list_names() == set()


def test_a_part_is_whole_or_absent(tmp_path: Path) -> None:
    out = StoreFolder(str(tmp_path))
    out.write(name_part(0), b"first")
    out.write(name_part(0), b"second")
    (tmp_path / f".{name_part(1)}.0123.partial").write_bytes(b"of a writer that was killed")
    assert name_part(1) not in out.list_names()
    out.remove_partials()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name_part(0): b"second"}


def test_readers_of_the_folder_pass_over_the_plan(tmp_path: Path) -> None:
    assert PLAN.startswith("_")
    assert not PLAN.endswith(".parquet")


def test_the_rayjob_runs_the_locked_ray_in_pods_that_kubernetes_takes() -> None:
    job: dict[str, Any] = yaml.safe_load((RAY / "rayjob.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == read_pins(ROOT / "requirements/ray.txt")["ray"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, **group["template"]}
        kubernetes_validate.validate(pod, "1.33", strict=True)
    [container] = cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    words = job["spec"]["entrypoint"].split()
    assert words[:3] == ["python", "-m", "deploy.ray"]
    assert words[words.index("--cpus") + 1] == container["resources"]["requests"]["cpu"]


def test_the_image_of_the_cluster_installs_the_lock_alone() -> None:
    text = (RAY / "Dockerfile").read_text(encoding="utf-8")
    installs = [line for line in text.splitlines() if "pip install" in line]
    assert installs == ["    python -m pip install -qq --require-hashes -r /requirements.txt"]
    assert "COPY requirements/ray.txt /requirements.txt" in text
