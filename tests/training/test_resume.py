"""A run that is stopped, at whatever moment, ends with the weights of one that never was."""

import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.making import tiny_recipe, write_cifar10
from training.data.arrays import LabelledImages
from training.disk import require_space
from training.distributed import Ranks
from training.errors import DiskFull, NonFiniteLoss, RunMismatch
from training.journal import Journal, Value, read_journal
from training.recipe import Recipe, parse_recipe
from training.state import list_checkpoints, load_state
from training.task import load_splits
from training.train import train

ROOT = Path(__file__).resolve().parents[2]
CPU = Ranks(torch.device("cpu"))
STEPS = 12


class Killed(BaseException):
    """Stands for the end of the process."""


class Watcher:
    """An observer that ends the run after `last_step`."""

    def __init__(self, last_step: int = STEPS) -> None:
        self.last_step = last_step

    def saw_steps(self, step: int, steps: int, loss: float, error: float, images_per_s: float) -> None:
        assert steps == STEPS
        if step > self.last_step:
            raise Killed

    def saw_evaluation(self, step: int, values: dict[str, Value]) -> None: ...

    def say(self, sentence: str) -> None: ...


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cifar10(tmp_path_factory.mktemp("cifar"))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that was never stopped."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    train(tiny_recipe(), data, directory, CPU, Watcher())
    return directory


def assert_same_end(directory: Path, expected: Path) -> None:
    """Last and best checkpoint hold the same bits: weights, average, momentum, meters."""
    for name in (list_checkpoints(expected)[-1].name, "best.pt"):
        ours, theirs = load_state(directory / name), load_state(expected / name)
        assert ours.step == theirs.step
        assert ours.average is not None
        assert theirs.average is not None
        for key, value in theirs.model.items():
            assert torch.equal(ours.model[key], value), key
            assert torch.equal(ours.average[key], theirs.average[key]), key
        for slot, momentum in theirs.optimizer["state"].items():
            assert torch.equal(ours.optimizer["state"][slot]["momentum_buffer"], momentum["momentum_buffer"])
        ours.elapsed_s, theirs.elapsed_s = 0.0, 0.0
        assert (ours.meter, ours.best_error, ours.schedule) == (
            theirs.meter,
            theirs.best_error,
            theirs.schedule,
        )


@pytest.mark.parametrize("last_step", [0, 3, 5, 10])
def test_a_run_stopped_at_any_step_ends_the_same(
    data: Path, whole: Path, tmp_path: Path, last_step: int
) -> None:
    with pytest.raises(Killed):
        train(tiny_recipe(), data, tmp_path, CPU, Watcher(last_step))
    train(tiny_recipe(), data, tmp_path, CPU, Watcher())
    assert_same_end(tmp_path, whole)


def test_a_killed_process_goes_on_where_it_was(data: Path, whole: Path, tmp_path: Path) -> None:
    """kill -9 in the middle of an epoch, then the same command again; one thread in both."""
    command = [
        *(sys.executable, "-m", "training", "train", "cifar10/short-resnet20", "--threads=1"),
        *(f"--data={data}", f"--out={tmp_path}", "--set=run.ema=0.9"),
        *("--set=data.validation=20", "--set=optimizer.batch=16", "--set=schedule.epochs=1.9"),
        *("--set=schedule.warmup_iterations=4", "--set=run.checkpoint_every_steps=2"),
        "--set=run.evaluate_every_epochs=0.5",
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        while process.poll() is None and len(list_checkpoints(tmp_path)) < 2:
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "the run was over before it could be killed"
    assert load_state(list_checkpoints(tmp_path)[-1]).step < STEPS
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same_end(tmp_path, whole)
    evaluations = [
        int(line["step"] or 0) for line in read_journal(tmp_path / "metrics.jsonl") if "epoch" in line
    ]
    assert evaluations == sorted(set(evaluations)), "an evaluation was logged twice"


@pytest.mark.parametrize("last_step", [STEPS, 2], ids=["in one go", "stopped within the warm-up"])
def test_the_warm_up_of_110_layers_ends_with_the_training_error(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_step: int
) -> None:
    """Any error is below 101 %, none below 0: the rate rises as soon as it may, or never. Section 4.2."""
    monkeypatch.setattr("training.schedule.WARMUP_WINDOW", 6)
    for limit, expected in ((101, [0.01, 0.2, 0.2, 0.2]), (0, [0.01, 0.01, 0.01, 0.01])):
        recipe = tiny_recipe(
            *("schedule.kind=step", "schedule.warmup_iterations=0", "schedule.warmup_lr=0.01"),
            *(f"schedule.warmup_until_error={limit}", "run.checkpoint_every_steps=1"),
        )
        directory = tmp_path / str(limit)
        if last_step < STEPS:
            with pytest.raises(Killed):
                train(recipe, data, directory, CPU, Watcher(last_step))
        train(recipe, data, directory, CPU, Watcher())
        lines = [line for line in read_journal(directory / "metrics.jsonl") if line["event"] == "evaluation"]
        assert [line["lr"] for line in lines] == expected


def test_another_recipe_is_kept_out_of_the_directory(data: Path, whole: Path) -> None:
    with pytest.raises(RunMismatch, match="choose another --out"):
        train(tiny_recipe("optimizer.lr=0.3"), data, whole, CPU, Watcher())


def test_a_torn_checkpoint_is_passed_over(data: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tiny_recipe(), data, tmp_path, CPU, Watcher(7))
    newest = list_checkpoints(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    train(tiny_recipe(), data, tmp_path, CPU, Watcher())
    assert_same_end(tmp_path, whole)


def test_only_the_last_checkpoints_and_the_best_are_kept(whole: Path) -> None:
    assert [path.name for path in list_checkpoints(whole)] == ["step-00000010.pt", "step-00000012.pt"]
    best = load_state(whole / "best.pt")
    errors = [line["validation_error"] for line in read_journal(whole / "metrics.jsonl") if "epoch" in line]
    assert best.best_error == min(errors)  # type: ignore[type-var]  # every one of them is a number


def test_a_full_disk_is_said_and_the_last_good_checkpoint_stays(
    data: Path, whole: Path, tmp_path: Path
) -> None:
    """The kernel's own file-size limit makes the write fail halfway, as a full disk does."""
    with pytest.raises(Killed):
        train(tiny_recipe(), data, tmp_path, CPU, Watcher(5))
    before = sorted(path.name for path in tmp_path.iterdir())
    script = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000));"
        "from tests.training.test_resume import *; torch.set_num_threads(1);"
        f"train(tiny_recipe(), Path({str(data)!r}), Path({str(tmp_path)!r}), CPU, Watcher())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert f"{DiskFull.__name__}: no space to write" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    train(tiny_recipe(), data, tmp_path, CPU, Watcher())
    assert_same_end(tmp_path, whole)


def test_a_full_disk_is_said_by_whatever_writes_first(tmp_path: Path) -> None:
    """/dev/full is a disk without space, from the kernel itself."""
    journal = Journal(tmp_path / "metrics.jsonl", 0)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(DiskFull, match=r"no space to write .*metrics.jsonl; the checkpoints before"):
        journal.write("evaluation", 1, error=3.0)
    (tmp_path / ".probe").symlink_to("/dev/full")
    with pytest.raises(DiskFull, match="Free some space"):
        require_space(tmp_path)


def test_a_loss_that_is_no_number_stops_the_run_with_step_and_batch(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("optimizer.lr=1e30", "schedule.warmup_iterations=0")
    with pytest.raises(NonFiniteLoss, match=r"at step \d+; its batch was training images \d+") as caught:
        train(recipe, data, tmp_path, CPU, Watcher())
    assert len(caught.value.indices) == recipe.optimizer.batch
    assert all(load_state(path).step <= caught.value.step for path in list_checkpoints(tmp_path))


def test_checkpoints_hold_the_resolved_recipe(whole: Path) -> None:
    assert parse_recipe(load_state(whole / "best.pt").recipe) == tiny_recipe()


def test_a_seed_is_a_run_of_its_own(data: Path, whole: Path, tmp_path: Path) -> None:
    recipe: Recipe = tiny_recipe()
    other = replace(recipe, run=replace(recipe.run, seed=1))
    train(other, data, tmp_path, CPU, Watcher())
    ours, theirs = load_state(tmp_path / "best.pt"), load_state(whole / "best.pt")
    assert not torch.equal(ours.model["fc.weight"], theirs.model["fc.weight"])


def test_splits_are_disjoint_and_whole(data: Path) -> None:
    training, validation = load_splits(tiny_recipe(), data)
    assert (len(training), len(validation)) == (100, 20)

    def keys(images: LabelledImages) -> set[bytes]:
        return {image.tobytes() for image in images.images}

    assert not keys(training) & keys(validation)
