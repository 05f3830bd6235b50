"""The command line of models/: `import`, `ensemble`, `archs`, `check`.

Exit codes: 0 done; 1 a model version is not what its card says (check); 2 what was asked for cannot be
done, with one line on stderr that says why. torch is imported only by the commands that need it.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from models.card import Preprocess
from models.integrity import BadVersion
from models.repository import (
    ModelRepository,
    ModelVersion,
    UnknownModel,
    VersionExists,
    check_version,
)

if TYPE_CHECKING:
    from models.networks.architecture import Architecture

OK, FOUND_BAD, CANNOT = 0, 1, 2


class Refused(Exception):
    """What was asked for cannot be done; the message is the one line the user sees."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without repeating the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(CANNOT, f"error: {message} ({self.prog} --help lists what it takes)\n")


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code."""
    asked = _build_parser().parse_args(arguments)
    try:
        return int(asked.run(asked))
    except (Refused, BadVersion, VersionExists, UnknownModel) as err:
        sys.stderr.write(f"error: {err}\n")
    except ModuleNotFoundError as err:
        sys.stderr.write(f"error: this needs {err.name}: pip install 'resnet-serve[train]'\n")
    except OSError as err:
        sys.stderr.write(f"error: {err.filename or 'the repository'}: {err.strerror}\n")
    return CANNOT


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser("python -m models", description="Model versions and the networks in them.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_import(commands.add_parser("import", help="turn a checkpoint into a model version"))
    _add_ensemble(commands.add_parser("ensemble", help="average the scores of several models as one"))
    commands.add_parser("archs", help="list the architectures").set_defaults(run=_list_architectures)
    check = commands.add_parser("check", help="check model versions against their cards")
    check.add_argument("directory", type=Path, help="a repository or one model version")
    check.set_defaults(run=_check)
    return parser


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_import)
    parser.add_argument("file", type=Path, help="the checkpoint: .pth, .pt, .th or .safetensors")
    parser.add_argument("--arch", required=True, help="its architecture, such as resnet50; see archs")
    parser.add_argument("--labels", type=Path, required=True, help="a text file, one label a line")
    parser.add_argument("--name", required=True, help="the name of the model")
    parser.add_argument("--to", type=Path, required=True, metavar="REPOSITORY", help="where to put it")
    prepared = parser.add_argument_group("how its author prepared images (defaults: the family's usual way)")
    for option in ("--mean", "--std"):
        prepared.add_argument(option, type=_parse_channels, metavar="R,G,B", help="in units of 1")
    prepared.add_argument("--resize", type=int, metavar="PX", help="shorter side after resizing")
    prepared.add_argument("--crop", type=int, metavar="PX", help="side of the centre crop")
    prepared.add_argument("--interpolation", choices=("bilinear", "bicubic"))


def _add_ensemble(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_write_ensemble)
    parser.add_argument("members", nargs="+", metavar="NAME[@VERSION][=WEIGHT]", help="a model, its weight 1")
    parser.add_argument("--name", required=True, help="the name of the ensemble")
    parser.add_argument("--to", type=Path, required=True, metavar="REPOSITORY", help="where to put it")
    parser.add_argument(
        "--from", type=Path, dest="source", metavar="REPOSITORY", help="the members' (as --to)"
    )


def _parse_channels(text: str) -> tuple[float, ...]:
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{text!r} must be three numbers, such as 0.49,0.48,0.45") from err
    return red, green, blue


def _import(asked: argparse.Namespace) -> int:
    from models.checkpoints.importing import Import, import_checkpoint, read_labels
    from models.checkpoints.reading import BadCheckpoint
    from models.networks import find_architecture
    from models.networks.architecture import UnknownArchitecture

    try:
        architecture = find_architecture(asked.arch)
        preprocess = _choose_preprocess(asked, architecture.preprocess)
        labels = read_labels(asked.labels)
        wanted = Import(asked.file, architecture, labels, asked.name, preprocess)
        version = import_checkpoint(wanted, asked.to)
    except (UnknownArchitecture, BadCheckpoint) as err:
        raise Refused(str(err)) from err
    sys.stdout.write(f"{version.reference} in {version.path}\n")
    return OK


def _write_ensemble(asked: argparse.Namespace) -> int:
    from models.ensemble import write_ensemble

    repository = ModelRepository([asked.source or asked.to])
    members, weights = [], []
    for member in asked.members:
        reference, equals, weight = member.partition("=")
        try:
            weights.append(float(weight) if equals else 1.0)
        except ValueError as err:
            raise Refused(f"{member}: the weight must be a number, such as {reference}=2") from err
        members.append(repository.find(reference))
    version = write_ensemble(asked.to, asked.name, members, weights)
    sys.stdout.write(f"{version.reference} in {version.path}\n")
    return OK


def _choose_preprocess(asked: argparse.Namespace, usual: Preprocess) -> Preprocess:
    given = {
        "mean": asked.mean,
        "std": asked.std,
        "resize_px": asked.resize,
        "crop_px": asked.crop,
        "interpolation": asked.interpolation,
    }
    crop_px = usual.crop_px if asked.crop is None else asked.crop
    resize_px = usual.resize_px if asked.resize is None else asked.resize
    if not 0 < crop_px <= resize_px <= 4096:
        raise Refused(f"need 0 < crop {crop_px} <= resize {resize_px} <= 4096")
    chosen = replace(usual, **{name: value for name, value in given.items() if value is not None})
    if not all(0 < std <= 1 for std in chosen.std) or not all(0 <= mean <= 1 for mean in chosen.mean):
        raise Refused("mean must lie in 0..1, std above 0 and at most 1: in units of 1, not of 255")
    return chosen


def _list_architectures(asked: argparse.Namespace) -> int:
    from models.networks import list_architectures
    from models.networks.counting import count_architecture

    sys.stdout.write(f"{'architecture':<18}{'input':>9}{'parameters':>16}{'multiply-adds':>18}\n")
    for architecture in sorted(list_architectures(), key=_depth_order):
        count, side = count_architecture(architecture), architecture.crop_px
        size = f"{side}x{side}"
        sys.stdout.write(
            f"{architecture.name:<18}{size:>9}{count.parameters:>16,}{count.multiply_adds:>18,}\n"
        )
    return OK


def _depth_order(architecture: "Architecture") -> tuple[int, list[str | int]]:
    """By input size, then by name with its depth as a number: resnet50 before resnet110."""
    parts = re.split(r"(\d+)", architecture.name)
    return architecture.crop_px, [int(part) if part.isdigit() else part for part in parts]


def _check(asked: argparse.Namespace) -> int:
    directory: Path = asked.directory
    if not directory.is_dir():
        raise Refused(f"{directory} is not a directory")
    if (directory / "card.json").exists():
        return _report(directory, ModelRepository([directory.parent.parent]))
    repository = ModelRepository([directory])
    paths = [version.path for version in repository.list()]
    paths += [problem.path for problem in repository.list_problems()]
    if not paths:
        raise Refused(f"{directory} holds no model versions")
    return max(_report(path, repository) for path in sorted(paths))


def _report(path: Path, repository: ModelRepository) -> int:
    from models.selftest import SelfTestFailed

    name = f"{path.parent.name}@{path.name}"
    try:
        result = ", ".join(_check_one(check_version(path.resolve()), repository))
    except (BadVersion, SelfTestFailed) as err:
        sys.stdout.write(f"{name}: BAD: {err}\n")
        return FOUND_BAD
    sys.stdout.write(f"{name}: good: {result}\n")
    return OK


def _check_one(version: ModelVersion, repository: ModelRepository) -> list[str]:
    """Run the self-test at every precision the version has on the CPU."""
    from models.engines.base import Placement
    from models.ensemble import list_precisions, open_version
    from models.selftest import run_selftest

    results = []
    for precision in list_precisions(version, repository, "cpu"):
        engine = open_version(version, repository, Placement(precision=precision))
        test = run_selftest(version.card, engine, precision)
        results.append(f"{precision} within {test.difference:.2g} on {test.images} golden images")
        engine.close()
    return results
