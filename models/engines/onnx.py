"""ONNX Runtime on the CPU: the engine of the service. Imports neither torch nor the onnx package.

Two sessions of one graph: a wide one that spreads a batch over every thread, for the lone request, and a
narrow one that computes on the calling thread alone, so that several threads each run a batch of their own.
Spinning is off: threads that spin for work steal the frontend's core.

Equal inputs give bitwise equal outputs, whatever else is in the batch, whichever session computes it and
however many threads it has: no sum is split over threads, and the classifier is a 1x1 convolution, computed
per image (a Gemm has another kernel for one row). tests/models/engines/test_onnx.py holds this.
"""

from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.engines.base import EngineError, EngineOutput, OutOfMemory
from models.integrity import CLASSIFIER_BIAS, CLASSIFIER_WEIGHT, GRAPH, GRAPH_INT8, INPUT, OUTPUTS, WEIGHTS
from models.repository import ModelVersion
from models.tensors import read_header, read_tensor

Precision = Literal["fp32", "int8"]
GRAPHS: dict[str, str] = {"fp32": GRAPH, "int8": GRAPH_INT8}


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
            outputs = session.run(names, {INPUT: views})
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


def _open_session(graph: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as err:  # as in infer
        raise _translate(err) from err


def _read_classifier(weights: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    tensors = read_header(weights)
    weight = read_tensor(weights, tensors[CLASSIFIER_WEIGHT])
    bias = read_tensor(weights, tensors[CLASSIFIER_BIAS])
    return weight.astype(np.float32, copy=False), bias.astype(np.float32, copy=False)


def _translate(err: Exception) -> EngineError:
    if isinstance(err, MemoryError) or "allocate memory" in str(err) or "bad_alloc" in str(err):
        return OutOfMemory("ONNX Runtime had no memory for this batch")
    return EngineError(f"ONNX Runtime: {err}")
