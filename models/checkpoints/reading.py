"""Read a third party's checkpoint as named tensors, running nothing that is in it.

`.safetensors` is plain data; every other kind is unpickled with weights_only=True, which builds tensors and
plain containers and refuses all else.
"""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

SUFFIXES = (".pth", ".pt", ".th", ".safetensors")
NESTED = ("state_dict", "model")  # where training scripts put the weights among other things

# What torch.load raises for files that are cut, empty, of another kind, or hold objects.
_UNREADABLE = (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError)


class BadCheckpoint(ValueError):
    """The file is no usable checkpoint; the message names it, or the first key that does not fit."""


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The state dict in `path`, with the names this project uses; raises BadCheckpoint, OSError.

    `module.` (from DataParallel) is taken off, `linear` (common in CIFAR networks) becomes `fc`, and the
    batch counts of batch norms are dropped.
    """
    if path.suffix not in SUFFIXES:
        raise BadCheckpoint(f"{path.name} must end in one of {', '.join(SUFFIXES)}")
    found = _load(path)
    for key in NESTED:
        nested = found.get(key)
        if isinstance(nested, Mapping):
            found = nested
            break
    return {
        _rename(name): value
        for name, value in _only_tensors(path, found).items()
        if not name.endswith("num_batches_tracked")
    }


def _load(path: Path) -> Mapping[object, object]:
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path).items())
        found: object = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as err:
        raise BadCheckpoint(f"{path.name} is not a safetensors file") from err
    except OSError:
        raise
    except _UNREADABLE as err:
        raise BadCheckpoint(_explain(path, err)) from err
    if not isinstance(found, Mapping):
        kind = type(found).__name__
        raise BadCheckpoint(f"{path.name} holds a {kind}, not a state dict; save network.state_dict()")
    return found


def _explain(path: Path, err: Exception) -> str:
    """Tell a file that holds code from one that is broken; torch names the refused class in its message."""
    if "Unsupported global" in str(err) or "Unsupported class" in str(err) or "GLOBAL" in str(err):
        return f"{path.name} holds Python objects, which are never unpickled; save network.state_dict() alone"
    return f"{path.name} is not a checkpoint torch can read; is it complete?"


def _only_tensors(path: Path, found: Mapping[object, object]) -> dict[str, Tensor]:
    tensors = {}
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            kind = type(value).__name__
            raise BadCheckpoint(f"{path.name}: {str(name)[:80]!r} is a {kind}, not a tensor of a state dict")
        tensors[name] = value
    if not tensors:
        raise BadCheckpoint(f"{path.name} holds no tensors")
    return tensors


def _rename(name: str) -> str:
    name = name.removeprefix("module.")
    return f"fc.{name.removeprefix('linear.')}" if name.startswith("linear.") else name
