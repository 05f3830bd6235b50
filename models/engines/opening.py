"""Open the engine for a device: ONNX Runtime on the CPU, torch on CUDA.

An engine is one module of this package with `list_precisions` and `open_engine`; it is imported only when
it is chosen, so that the CPU service never loads torch.
"""

import importlib
import os
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

from models import engines
from models.engines.base import Engine, Placement
from models.repository import ModelVersion

NOT_ENGINES = ("base", "opening")
MIG = "MIG-"


def list_engines() -> list[str]:
    """The names of all engines, without importing any."""
    return sorted(
        info.name for info in pkgutil.iter_modules(engines.__path__) if info.name not in NOT_ENGINES
    )


def default_engine(device: str) -> str:
    """The engine for `cpu`, `cuda:0`, ... when none is named."""
    return "onnx" if device == "cpu" else "torch"


def load_libraries(device: str) -> None:
    """Import what the default engine of `device` needs, so that opening it later is quick."""
    _module(None, device)


def list_precisions(version: ModelVersion, device: str, engine: str | None = None) -> tuple[str, ...]:
    """The precisions at which `version` can run there, the one to use by default first."""
    found: Callable[[ModelVersion, str], tuple[str, ...]] = _module(engine, device).list_precisions
    return found(version, device)


def open_engine(version: ModelVersion, placement: Placement, engine: str | None = None) -> Engine:
    """Load `version`; raises EngineError. A MIG slice becomes the only device this process can see."""
    if placement.device.startswith(MIG):
        os.environ["CUDA_VISIBLE_DEVICES"] = placement.device  # read by CUDA when torch first touches it
        placement = replace(placement, device="cuda:0")
    open_it: Callable[[ModelVersion, Placement], Engine] = _module(engine, placement.device).open_engine
    return open_it(version, placement)


def _module(engine: str | None, device: str) -> ModuleType:
    name = engine or default_engine(device)
    if name not in list_engines():
        raise ValueError(f"no engine is named {name!r}; there are: {', '.join(list_engines())}")
    return importlib.import_module(f"models.engines.{name}")
