"""From a version's directory to a LoadedModel: every check, the golden self-test, a warm-up that measures."""

import logging
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from models.card import ModelCard
from models.decode import DecodeLimits
from models.engines.base import Engine, EngineError, Placement
from models.ensemble import list_precisions, open_version
from models.integrity import BadVersion
from models.precision import choose_precision
from models.repository import ModelRepository, ModelVersion, check_version
from models.selftest import SelfTestFailed, run_selftest
from models.views import list_policies
from service.settings import Settings
from service.worker.decoding import DecoderProcesses, InlineDecoder
from service.worker.pipeline import Pipeline, PipelineLimits
from service.worker.serving import LoadedModel
from service.worker.warmup import measure_costs

CPU = "cpu"

log = logging.getLogger("worker")


class VersionRefused(ValueError):
    """The version failed its checks or its self-test; the message says which, for operators."""


def load_model(path: Path, device: str, threads: int, settings: Settings) -> LoadedModel:
    """Load, check, test and warm up one version on `device`; raises VersionRefused."""
    started = time.monotonic()
    try:
        version = check_version(path)
        engines = _open_engines(version, device, threads, settings)
        crop_px = version.card.preprocess.crop_px
        wide = threads if device == CPU else 0
        budget_ms, max_views = settings.batch_budget_ms, settings.max_batch_views
        costs = {
            precision: measure_costs(engine, crop_px, wide, budget_ms, max_views)
            for precision, engine in engines.items()
        }
    except (BadVersion, SelfTestFailed, EngineError) as err:
        raise VersionRefused(str(err)) from err
    decoder = _start_decoder(device, threads, settings)
    pipeline = Pipeline(
        version.card, engines, list_policies(), _limits(version.card, engines, settings), decoder
    )
    view_ms = costs[pipeline.default_precision].view_ms((crop_px, crop_px))
    policy_ms = {tta: round(views * view_ms, 3) for tta, views in pipeline.list_costs().items()}
    fields = {
        "model": version.reference,
        "precisions": sorted(engines),
        "default": pipeline.default_precision,
        "cost_ms": policy_ms,
    }
    took_s = round(time.monotonic() - started, 3)
    log.info("model loaded", extra={"fields": fields | {"took_s": took_s}})
    return LoadedModel(engines, costs, pipeline, policy_ms, version.card.default_tta)


def _open_engines(version: ModelVersion, device: str, threads: int, settings: Settings) -> dict[str, Engine]:
    """An engine per precision, the default one first, each past its self-test.

    On a CPU every precision the version has; on a GPU the best alone, whose memory and compile time count.
    """
    repository = ModelRepository([Path(one) for one in settings.model_repository.split(":") if one])
    engine_name = None if settings.engine == "auto" else settings.engine
    offered = list_precisions(version, repository, device, engine_name)

    def open_one(precision: str) -> Engine:
        engine = open_version(version, repository, Placement(device, precision, threads), engine_name)
        run_selftest(version.card, engine, precision)
        return engine

    precisions = offered if device == CPU else offered[:1]
    with ThreadPoolExecutor(len(precisions)) as openers:
        return dict(zip(precisions, openers.map(open_one, precisions), strict=True))


def _start_decoder(device: str, lanes: int, settings: Settings) -> InlineDecoder | DecoderProcesses:
    chosen = settings.decode_in
    if chosen == "auto":
        chosen = "worker" if device == CPU else "processes"
    return DecoderProcesses(lanes, settings.max_decode_bytes) if chosen == "processes" else InlineDecoder()


def _limits(card: ModelCard, engines: Collection[str], settings: Settings) -> PipelineLimits:
    decode = DecodeLimits(settings.max_image_bytes, settings.max_pixels)
    precision = choose_precision(card, engines, settings.precision, settings.int8_max_loss)
    return PipelineLimits(decode, settings.max_view_pixels, precision)
