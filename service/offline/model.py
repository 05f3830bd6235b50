"""The model of an offline batch: the same checks, self-test and measuring as a worker's."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.repository import ModelRepository, ModelVersion
from models.repository import UnknownModel as NoSuchVersion
from service.errors import Internal, UnknownModel
from service.protocols.options import parse_options
from service.settings import Settings
from service.types import ClassifyOptions
from service.worker.loading import CPU, VersionRefused, load_model
from service.worker.serving import LoadedModel


@dataclass(frozen=True, slots=True)
class OfflineModel:
    """`reference` is name@version; `threads` as many as score at once."""

    loaded: LoadedModel
    reference: str
    digest: str
    labels: Sequence[str]
    options: ClassifyOptions
    threads: int


def find_version(settings: Settings, name: str) -> ModelVersion:
    """The version that `name` means, "" being the default one's; raises UnknownModel."""
    repository = ModelRepository(
        [Path(one).absolute() for one in settings.model_repository.split(":") if one]
    )
    try:
        return repository.find(name or settings.default_model)
    except NoSuchVersion as err:
        raise UnknownModel(str(err)) from err


def open_model(settings: Settings, given: Mapping[str, Any]) -> OfflineModel:
    """The model named by `given["model"]`, with its other options; raises ServiceError."""
    names = ("model", "tta", "top_k", "precision")
    options = parse_options({name: str(given[name]) for name in names if given[name]})
    threads = given["threads"] or len(os.sched_getaffinity(0))
    version = find_version(settings, options.model)
    try:
        loaded = load_model(version.path, CPU, 1, settings)
    except VersionRefused as err:
        raise Internal(f"{version.reference} was refused: {err}") from err
    return OfflineModel(loaded, version.reference, version.digest, version.card.labels, options, threads)
