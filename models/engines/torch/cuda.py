"""torch on one CUDA device: everything that needs CUDA, and nothing else.

    caller's thread            upload stream          compute stream               download stream
    views -> pinned  ────────► pinned -> device  ───► pad into the bucket,  ─────► device -> pinned ─► numpy
                                                      replay its CUDA graph

A bucket is a batch size at the native crop: compiled by torch.compile and captured as a CUDA graph at load,
so that serving never compiles. Views of another size run the same form uncompiled. Two lanes, each with
its own buffers, let the copies of one batch run beside the computation of another.

No GPU was at hand when this was written: it has been read and type-checked, not run. On a machine with one,
`python -m models.engines.torch.exercise VERSION` runs all of it.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.engines.base import DeviceLost, EngineError, EngineOutput, OutOfMemory
from models.engines.torch import ServingForm, check_views

BUCKETS = (1, 8, 32, 64)  # each is compiled at load; a batch between two is padded to the larger
LANES = 2  # one batch computes while the other is copied
Outputs = tuple[Tensor, Tensor]  # logits float32 [N, K], features float32 [N, C, h, w]
WARM_RUNS = 3  # torch asks for a few runs on a side stream before capture

log = logging.getLogger("engine")


@dataclass(frozen=True, slots=True)
class _Bucket:
    """A captured batch size: fill `views`, replay `graph`, read `logits` and `features`."""

    size: int
    graph: torch.cuda.CUDAGraph
    views: Tensor  # uint8 [size, H, W, 3]
    logits: Tensor  # float32 [size, K]
    features: Tensor  # float32 [size, C, h, w]


@dataclass(frozen=True, slots=True)
class _Lane:
    """The streams of one batch in flight."""

    upload: torch.cuda.Stream
    download: torch.cuda.Stream


class CudaEngine:
    """One model version on one CUDA device. See base.Engine; `threads` means nothing here."""

    def __init__(
        self, form: ServingForm, device: torch.device, crop_px: int, buckets: tuple[int, ...] = BUCKETS
    ) -> None:
        """Compiles and captures every bucket, which takes seconds to minutes; raises EngineError."""
        self._classifier = form.read_classifier()
        self._device = device
        self._computing = Lock()
        self._lanes: SimpleQueue[_Lane] = SimpleQueue()
        torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32: TF32 rounds to ten bits
        with translated_errors(), torch.cuda.device(device), torch.inference_mode():
            self._form = form.to(device)
            self._compute = _open_stream(device)
            for _ in range(LANES):
                self._lanes.put(_Lane(_open_stream(device), _open_stream(device)))
            self._buckets = _capture_buckets(self._form, self._compute, crop_px, buckets)

    def infer(self, views: NDArray[np.uint8], *, features: bool = False, threads: int = 1) -> EngineOutput:
        """See base.Engine. A batch above the largest bucket is computed uncompiled."""
        check_views(views)
        lane = self._lanes.get()
        try:
            with translated_errors(), torch.cuda.device(self._device), torch.inference_mode():
                return self._run(lane, views, features)
        finally:
            self._lanes.put(lane)

    @property
    def classifier(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The last layer: weight float32 [K, C] and bias float32 [K]."""
        return self._classifier

    def close(self) -> None:
        """Free the graphs and the weights on the device; the engine must not be used afterwards."""
        self._buckets.clear()
        self._form.to("cpu")
        torch.cuda.empty_cache()

    def _run(self, lane: _Lane, views: NDArray[np.uint8], features: bool) -> EngineOutput:
        with torch.cuda.stream(lane.upload):
            pinned = torch.empty(views.shape, dtype=torch.uint8, pin_memory=True)
            pinned.numpy()[...] = views
            uploaded = pinned.to(self._device, non_blocking=True)
        with self._computing, torch.cuda.stream(self._compute):
            self._compute.wait_stream(lane.upload)
            uploaded.record_stream(self._compute)
            logits, maps = self._compute_batch(uploaded, features)
            computed = self._compute.record_event()
        with torch.cuda.stream(lane.download):
            lane.download.wait_event(computed)
            results = [_download(tensor, lane.download) for tensor in (logits, maps) if tensor is not None]
        lane.download.synchronize()  # waits without the interpreter's lock
        return EngineOutput(results[0].numpy(), results[1].numpy() if features else None)

    def _compute_batch(self, views: Tensor, features: bool) -> tuple[Tensor, Tensor | None]:
        """Runs on the compute stream, one batch at a time: buckets share their memory."""
        count = len(views)
        bucket = self._find_bucket(views)
        if bucket is None:
            logits, maps = self._form(views)
            return logits, maps.contiguous() if features else None
        bucket.views[:count].copy_(views)  # what is left of an earlier batch fills the rest
        bucket.graph.replay()
        # Copies, because the next batch overwrites the bucket while this one is being downloaded.
        maps = bucket.features[:count].clone(memory_format=torch.contiguous_format) if features else None
        return bucket.logits[:count].clone(), maps

    def _find_bucket(self, views: Tensor) -> _Bucket | None:
        for bucket in self._buckets:
            if len(views) <= bucket.size and views.shape[1:] == bucket.views.shape[1:]:
                return bucket
        return None


def _capture_buckets(
    form: ServingForm, stream: torch.cuda.Stream, crop_px: int, sizes: tuple[int, ...]
) -> list[_Bucket]:
    """The largest first, so that all share the memory it needed; returned smallest first.

    The fastest algorithms are searched for here alone: while serving, new shapes must not wait for that.
    """
    captured = []
    pool = torch.cuda.graph_pool_handle()
    compiled = _compile(form, stream, crop_px)
    with torch.backends.cudnn.flags(benchmark=True, allow_tf32=False):
        for size in sorted(sizes, reverse=True):
            views = torch.zeros((size, crop_px, crop_px, 3), dtype=torch.uint8, device=stream.device)
            _warm_up(compiled, views, stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=stream):
                logits, features = compiled(views)
            captured.append(_Bucket(size, graph, views, logits, features))
    return captured[::-1]


def _compile(form: ServingForm, stream: torch.cuda.Stream, crop_px: int) -> Callable[[Tensor], Outputs]:
    """`form` compiled; as it is where the machine cannot compile, for want of a C compiler for instance."""
    compiled: Callable[[Tensor], Outputs] = torch.compile(form, dynamic=False)
    views = torch.zeros((1, crop_px, crop_px, 3), dtype=torch.uint8, device=stream.device)
    try:
        _warm_up(compiled, views, stream)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # the compiler's errors have no common base
        log.warning("torch.compile failed; the network runs uncompiled, and slower", exc_info=True)
        return form
    return compiled


def _warm_up(run: Callable[[Tensor], Outputs], views: Tensor, stream: torch.cuda.Stream) -> None:
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_RUNS):
            run(views)
    stream.synchronize()


def _open_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch has no types for it


def _download(tensor: Tensor, stream: torch.cuda.Stream) -> Tensor:
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    pinned.copy_(tensor, non_blocking=True)
    tensor.record_stream(stream)
    return pinned


@contextmanager
def translated_errors() -> Iterator[None]:
    """Tell what a smaller batch survives from what only a new process survives."""
    try:
        yield
    except torch.OutOfMemoryError as err:
        torch.cuda.empty_cache()
        raise OutOfMemory("the device had no memory for this batch") from err
    except RuntimeError as err:
        if "CUDA error" in str(err) or "cuDNN error" in str(err):
            raise DeviceLost(f"torch: {err}") from err
        raise EngineError(f"torch: {err}") from err
