"""`resnet-serve batch` on the model that ships with the project."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.service.jobs.bodies import make_tar, make_zip
from tests.service.offline.pictures import make_pictures, write_pictures

PICTURES = make_pictures(40)


def command(source: object, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "service", "batch", str(source), "--out", str(out), *more]


def score(source: object, out: Path, *more: str, code: int = 0) -> str:
    """Run it; returns what it said."""
    done = subprocess.run(command(source, out, *more), capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stderr


def read_rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_a_folder_and_its_archive_score_alike_in_every_format(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", PICTURES)
    (tmp_path / "p.zip").write_bytes(make_zip(PICTURES))
    (tmp_path / "p.tar.gz").write_bytes(make_tar(PICTURES, "w:gz"))
    said = score(folder, tmp_path / "folder.ndjson")
    assert "40 images: 0 failed" in said
    rows = read_rows(tmp_path / "folder.ndjson")
    assert [(row["index"], row["id"]) for row in rows] == list(enumerate(PICTURES))
    score(tmp_path / "p.tar.gz", tmp_path / "tar.jsonl")
    assert read_rows(tmp_path / "tar.jsonl") == rows
    score(tmp_path / "p.zip", tmp_path / "zip.csv")
    with (tmp_path / "zip.csv").open(newline="", encoding="utf-8") as file:
        told = [(row["id"], json.loads(row["predictions"])) for row in csv.DictReader(file)]
    assert told == [(row["id"], row["predictions"]) for row in rows]
    assert not list(tmp_path.glob("*.work"))


def test_a_bad_file_is_a_row_and_an_exit_code(tmp_path: Path) -> None:
    pictures = {"a.png": PICTURES["0000.png"], "b.png": b"\x89PNG\r\n\x1a\nbroken", "c.jpg": b""}
    said = score(write_pictures(tmp_path / "p", pictures), tmp_path / "out.ndjson", code=1)
    assert "3 images: 2 failed" in said
    errors = [row.get("error", {}).get("type") for row in read_rows(tmp_path / "out.ndjson")]
    assert errors == [None, "broken-image", "broken-image"]


@pytest.mark.parametrize("tta", ["ten_crop", "adaptive", "multi_scale"])
def test_every_kind_of_policy_runs_in_step(tta: str, tmp_path: Path) -> None:
    """Images scored together get what each gets alone."""
    few = dict(list(PICTURES.items())[:2])
    score(write_pictures(tmp_path / "p", few), tmp_path / "all.ndjson", "--tta", tta)
    for row, (name, data) in zip(read_rows(tmp_path / "all.ndjson"), few.items(), strict=True):
        alone = write_pictures(tmp_path / name, {name: data})
        score(alone, tmp_path / f"{name}.ndjson", "--tta", tta)
        assert read_rows(tmp_path / f"{name}.ndjson")[0]["predictions"] == row["predictions"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted by Ctrl-C"])
def test_a_stopped_run_goes_on_without_scoring_anything_twice(number: signal.Signals, tmp_path: Path) -> None:
    pictures = make_pictures(700)
    (tmp_path / "p.zip").write_bytes(make_zip(pictures))
    out, work = tmp_path / "out.ndjson", tmp_path / "out.ndjson.work"
    running = subprocess.Popen(command(tmp_path / "p.zip", out, "--tta", "ten_crop"), stderr=subprocess.PIPE)
    with running:
        ends = time.monotonic() + 60
        while not (work / "results.ndjson").exists() or (work / "results.ndjson").stat().st_size < 20_000:
            assert time.monotonic() < ends
            time.sleep(0.01)
        running.send_signal(number)
        running.communicate(timeout=60)
    assert running.returncode == (-9 if number == signal.SIGKILL else 130)
    assert not out.exists()
    begun = len((work / "results.ndjson").read_bytes().splitlines())
    with (work / "results.ndjson").open("ab") as file:
        file.write(b'{"index":14')  # what a power cut may leave
    said = score(tmp_path / "p.zip", out, "--tta", "ten_crop")
    assert 0 < begun < 700
    assert "by an earlier run" in said
    rows = read_rows(out)
    assert [row["id"] for row in rows] == list(pictures)


def test_an_unfinished_run_is_not_mixed_with_another(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "p", {"a.png": PICTURES["0000.png"]})
    out = tmp_path / "out.ndjson"
    work = tmp_path / "out.ndjson.work"
    work.mkdir()
    score(folder, out)
    score(folder, out, "--overwrite")
    assert "--overwrite" in score(folder, out, code=2)
    out.unlink()
    work.mkdir()
    plan = {"source": "elsewhere", "digest": "0", "options": {}, "total": 0}
    (work / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    assert "was begun with another" in score(folder, out, code=2)


def test_a_path_is_told_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / f"[bold]{'long' * 25}:cat:.ndjson"
    out.touch()
    assert f"{out} is there already" in score(tmp_path, out, code=2)


@pytest.mark.parametrize(
    ("source", "out", "more", "says"),
    [
        pytest.param("none", "o.csv", (), "there is no file", id="no source"),
        pytest.param(".", "o.xlsx", (), "must end in", id="an unknown suffix"),
        pytest.param(".", "o.csv", ("--tta", "UP"), "tta", id="a bad option"),
        pytest.param(".", "o.csv", ("--model", "none"), "no model is named", id="an unknown model"),
    ],
)
def test_a_mistake_is_one_sentence(
    source: str, out: str, more: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    assert says in score(tmp_path / source, tmp_path / out, *more, code=2)
