"""`python -m tests.hostile FOLDER [--url URL]`: try every file below FOLDER; exit 1 if one did harm.

Without a URL files are decoded in a process of their own, replaced when a file ends it.
"""

import argparse
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.hostile.mutations import make_seeds, mutate
from tests.hostile.trial import Trial, decode_file, post_file

HANG_S = 30.0
BATCH = 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder", type=Path, help="files to try; with --mutations also a place to write them to"
    )
    parser.add_argument("--url", help="post to this running service instead of decoding here")
    parser.add_argument(
        "--mutations", type=int, default=0, help="write so many damaged files of each seed first"
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return run_child()
    if options.mutations:
        write_mutations(options.folder, options.mutations)
    files = sorted(path for path in options.folder.rglob("*") if path.is_file())
    trials = [post_file(path, options.url) for path in files] if options.url else list(decode_apart(files))
    return report(trials)


def write_mutations(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, seed in make_seeds().items():
        for number, damaged in enumerate(mutate(seed, count, seed=11)):
            (folder / f"{number:05d}-{name}").write_bytes(damaged)


def decode_apart(files: list[Path]) -> Iterator[Trial]:
    """Decode in children, some hundred files each; what ends or hangs a child is a bad trial."""
    waiting = list(files)
    while waiting:
        batch, tried = waiting[:BATCH], 0
        for trial in _run_batch(batch):
            tried += 1
            yield trial
        waiting = waiting[tried:]


def _run_batch(files: list[Path]) -> Iterator[Trial]:
    command = [sys.executable, "-m", "tests.hostile", ".", "--child"]
    names = "\n".join(str(path) for path in files)
    try:
        done = subprocess.run(
            command, input=names, capture_output=True, text=True, timeout=HANG_S + 2 * len(files), check=False
        )
        output, end = done.stdout, f"ended the process with {done.returncode}"
    except subprocess.TimeoutExpired as err:
        output, end = (err.stdout or b"").decode(), "hangs"
    lines = [line.split("\t") for line in output.splitlines() if line.count("\t") == 2]
    for path, (outcome, seconds, is_bad) in zip(files, lines, strict=False):
        yield Trial(path, outcome, float(seconds), is_bad == "True")
    if len(lines) < len(files):
        yield Trial(files[len(lines)], end, 0.0, is_bad=True)


def run_child() -> int:
    for line in sys.stdin:
        trial = decode_file(Path(line.rstrip("\n")))
        outcome = trial.outcome.replace("\t", " ").replace("\n", " ")
        sys.stdout.write(f"{outcome}\t{trial.seconds:.4f}\t{trial.is_bad}\n")
        sys.stdout.flush()
    return 0


def report(trials: list[Trial]) -> int:
    write = sys.stdout.write
    bad = [trial for trial in trials if trial.is_bad]
    write(f"{len(trials)} files: " + ", ".join(f"{n} {kind}" for kind, n in _count(trials)) + "\n")
    for trial in sorted(trials, key=lambda trial: -trial.seconds)[:5]:
        write(f"  {trial.seconds:6.2f} s  {trial.outcome}  {trial.path}\n")
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    write(f"largest process: {peak_mb:.0f} MB\n" if peak_mb else "")
    for trial in bad:
        write(f"BAD {trial.outcome}: {trial.path}\n")
    write(f"{len(bad)} did harm\n")
    return 1 if bad else 0


def _count(trials: list[Trial]) -> list[tuple[str, int]]:
    return Counter(trial.outcome if not trial.is_bad else "BAD" for trial in trials).most_common()


if __name__ == "__main__":
    sys.exit(main())
