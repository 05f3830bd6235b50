"""ONNX Runtime on the CPU: the engine of the service. Imports neither torch nor the onnx package.

Two sessions of one graph: a wide one that spreads a batch over every thread, for the lone request, and a
narrow one that computes on the calling thread alone, so that several threads each run a batch of their own.
Spinning is off: threads that spin for work steal the frontend's core.

Equal inputs give bitwise equal outputs, whatever else is in the batch, whichever session computes it and
however many threads it has: no sum is split over threads, and the classifier is a 1x1 convolution, computed
per image (a Gemm has another kernel for one row). tests/models/engines/test_onnx.py holds this.

All sessions of a process share one arena, without planned layouts per shape: after batches of 16 in both
sessions, a process with ResNet-18 holds 250 MB less than with arenas of their own, at the same speed. Without
any arena it would hold 30 MB less still, and batches of 8 would take 11 % longer. What opening a session and
what a large run needed is given back after it.
"""

import ctypes
from functools import cache
from pathlib import Path
from threading import Lock

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.engines.base import EngineError, EngineOutput, OutOfMemory, Placement
from models.integrity import CLASSIFIER_BIAS, CLASSIFIER_WEIGHT, GRAPH, GRAPH_INT8, INPUT, OUTPUTS, WEIGHTS
from models.repository import ModelVersion
from models.tensors import read_header, read_tensor

# 40 views of 224 px, or one of 1418: from here on, giving memory back (a few ms) is little beside the run.
LARGE_RUN_BYTES = 6 * 2**20
_sharing = Lock()
GRAPHS: dict[str, str] = {"fp32": GRAPH, "int8": GRAPH_INT8}


def list_precisions(version: ModelVersion, device: str) -> tuple[str, ...]:
    """The precisions the version has a graph for, fp32 first."""
    return tuple(precision for precision, graph in GRAPHS.items() if graph in version.card.files)


def open_engine(version: ModelVersion, placement: Placement) -> "OnnxEngine":
    """See models.engines.opening."""
    return OnnxEngine(version, placement.precision, placement.threads)


class OnnxEngine:
    """One model version on the CPU at one precision, "fp32" or "int8". See base.Engine."""

    def __init__(self, version: ModelVersion, precision: str = "fp32", threads: int = 1) -> None:
        """`threads` is what a call may use at most; the narrow session is made at its first use."""
        if GRAPHS.get(precision) not in version.card.files:
            raise EngineError(f"{version.reference} has no {precision} graph")
        self._graph = version.path / GRAPHS[precision]
        self._sessions = {threads: _open_session(self._graph, threads)}
        self._threads = threads
        self._opening = Lock()
        self._classifier = _read_classifier(version.path / WEIGHTS)

    def infer(self, views: NDArray[np.uint8], *, features: bool = False, threads: int = 1) -> EngineOutput:
        """See base.Engine; `threads` above 1 means all that the engine was given."""
        session = self._session(1 if threads == 1 else self._threads)
        names = list(OUTPUTS) if features else [OUTPUTS[0]]
        try:
            outputs = session.run(names, {INPUT: views}, _run_options(views))
        except Exception as err:  # ONNX Runtime raises classes of its binding without a common base
            raise _translate(err) from err
        return EngineOutput(outputs[0], outputs[1] if features else None)

    @property
    def classifier(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The last layer: weight float32 [K, C] and bias float32 [K]."""
        return self._classifier

    def close(self) -> None:
        """Release both sessions; the engine must not be used afterwards."""
        self._sessions.clear()

    def _session(self, threads: int) -> ort.InferenceSession:
        session = self._sessions.get(threads)
        if session is not None:
            return session
        with self._opening:
            if threads not in self._sessions:
                self._sessions[threads] = _open_session(self._graph, threads)
            return self._sessions[threads]


@cache
def _share_arena() -> None:
    """Register the arena that every session of this process allocates from, growing by what is needed."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    limits = {"max_mem": 0, "initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg({**limits, "arena_extend_strategy": 1}))


def _run_options(views: NDArray[np.uint8]) -> ort.RunOptions | None:
    if views.size < LARGE_RUN_BYTES:
        return None
    options = ort.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _open_session(graph: Path, threads: int) -> ort.InferenceSession:
    with _sharing:  # several may be opened at once
        _share_arena()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as err:  # as in infer
        raise _translate(err) from err
    _return_free_memory()
    return session


def _return_free_memory() -> None:
    """Give back what opening took beside the weights: 106 of 277 MB with both sessions of ResNet-18.

    ONNX Runtime rewrites the weights several times over and frees the copies, but glibc keeps their pages.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim is not None:
        trim(0)


def _read_classifier(weights: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    tensors = read_header(weights)
    weight = read_tensor(weights, tensors[CLASSIFIER_WEIGHT])
    bias = read_tensor(weights, tensors[CLASSIFIER_BIAS])
    return weight.astype(np.float32, copy=False), bias.astype(np.float32, copy=False)


def _translate(err: Exception) -> EngineError:
    if isinstance(err, MemoryError) or "allocate memory" in str(err) or "bad_alloc" in str(err):
        return OutOfMemory("ONNX Runtime had no memory for this batch")
    return EngineError(f"ONNX Runtime: {err}")
