"""Ensembles: a model version whose card pins members by digest, computed as if it were one network.

The logits of an ensemble are the weighted mean of its members'. That is linear, so it can be had by stacking:
the members' features side by side are the ensemble's features, and their classifiers, each times its weight,
side by side are its classifier. Every view policy and every class map then works unchanged, and decoding and
views happen once. What each member gave goes along, for `merge=probabilities`, which averages the members'
softmax as it does the views'. He et al. 2015, section 4.1 (six models of different depth).
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.card import GoldenImage, Member, ModelCard, PolicyCard, Provenance
from models.engines.base import Engine, EngineOutput, Placement
from models.engines.opening import list_precisions as list_precisions_of_one
from models.engines.opening import open_engine
from models.integrity import BadVersion
from models.repository import (
    ModelRepository,
    ModelVersion,
    check_members,
    check_version,
    refuse_unlike,
    write_version,
)
from models.views import list_policies
from models.views.base import Classifier, MemberLayer


class EnsembleEngine:
    """Several engines on the same views, as one. See base.Engine."""

    def __init__(self, members: Sequence[Engine], weights: Sequence[float]) -> None:
        """`weights` are relative. The members' feature maps must be of one size."""
        self._members = tuple(members)
        total = sum(weights)
        self._weights = tuple(np.float32(weight / total) for weight in weights)
        self._classifier = self._stack_classifiers()

    def infer(self, views: NDArray[np.uint8], *, features: bool = False, threads: int = 1) -> EngineOutput:
        """See base.Engine; the members are computed one after the other."""
        outputs = [member.infer(views, features=features, threads=threads) for member in self._members]
        members = np.stack([output.logits for output in outputs], axis=1)  # [N, M, K]
        logits = np.zeros_like(outputs[0].logits)
        for weight, output in zip(self._weights, outputs, strict=True):
            logits += weight * output.logits
        maps = [output.features for output in outputs if output.features is not None]
        stacked = np.concatenate(maps, axis=1) if features else None  # [N, sum C, h, w]
        return EngineOutput(logits, stacked, members)

    @property
    def classifier(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Over the members' features side by side: weight float32 [K, sum C] and bias float32 [K]."""
        return self._classifier

    @property
    def layers(self) -> tuple[MemberLayer, ...]:
        """The members' own classifiers and their shares, in the order of their features."""
        layers = zip(self._weights, self._members, strict=True)
        return tuple(MemberLayer(float(share), *member.classifier) for share, member in layers)

    def close(self) -> None:
        """Release every member."""
        for member in self._members:
            member.close()

    def _stack_classifiers(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        layers = [member.classifier for member in self._members]
        weighted = list(zip(self._weights, layers, strict=True))
        weight = np.concatenate([share * weight for share, (weight, _) in weighted], axis=1)
        bias = np.stack([share * bias for share, (_, bias) in weighted]).sum(axis=0)  # [K]
        return weight, bias


def read_classifier(engine: Engine) -> Classifier:
    """The last layer of an engine, for view policies: an ensemble's with those of its members."""
    return Classifier(*engine.classifier, engine.layers if isinstance(engine, EnsembleEngine) else ())


def open_version(
    version: ModelVersion, repository: ModelRepository, placement: Placement, engine: str | None = None
) -> Engine:
    """The engine of any version, an ensemble's members found in `repository` and checked.

    Raises BadVersion, EngineError.
    """
    if not version.card.members:
        return open_engine(version, placement, engine)
    members = [check_version(member.path) for member in check_members(version, repository)]
    engines = [open_engine(member, placement, engine) for member in members]
    return EnsembleEngine(engines, [pinned.weight for pinned in version.card.members])


def list_precisions(
    version: ModelVersion, repository: ModelRepository, device: str, engine: str | None = None
) -> tuple[str, ...]:
    """The precisions of any version on `device`, an ensemble's being those all its members have."""
    if not version.card.members:
        return list_precisions_of_one(version, device, engine)
    members = check_members(version, repository)
    offered = [list_precisions_of_one(member, device, engine) for member in members]
    return tuple(precision for precision in offered[0] if all(precision in others for others in offered))


def write_ensemble(
    directory: Path, name: str, members: Sequence[ModelVersion], weights: Sequence[float]
) -> ModelVersion:
    """Write an ensemble of `members`, pinned as they are now; raises BadVersion if they do not go together.

    Its golden images are those all members have, with the weighted mean of the logits torch gave for each.
    """
    if len(members) < 2 or len(weights) != len(members) or min(weights) <= 0:
        raise BadVersion("an ensemble needs two members or more, each with a weight above 0")
    first = members[0].card
    card = ModelCard(
        name=name,
        version=0,  # the next free one
        architecture="+".join(member.card.architecture for member in members),
        labels=first.labels,
        preprocess=first.preprocess,
        window=first.window,
        provenance=Provenance("ensemble", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")),
        golden=_merge_golden(members, weights),
        tolerance=_merge_tolerance(members),
        # Until training fits them: the mean of logits, which is what the golden images hold.
        policies={tta: PolicyCard(merge="logits") for tta in list_policies()},
        members=tuple(
            Member(member.card.name, member.card.version, member.digest, weight)
            for member, weight in zip(members, weights, strict=True)
        ),
    )
    for member in members:
        refuse_unlike(replace(members[0], card=card), member)
    return write_version(directory, card, {})


def _merge_golden(members: Sequence[ModelVersion], weights: Sequence[float]) -> tuple[GoldenImage, ...]:
    logits = [{golden.png: golden.logits for golden in member.card.golden} for member in members]
    shared = [png for png in logits[0] if all(png in others for others in logits)]
    shares = np.asarray(weights, np.float64) / sum(weights)
    return tuple(
        GoldenImage(png, tuple(float(x) for x in shares @ np.asarray([one[png] for one in logits])))
        for png in shared
    )


def _merge_tolerance(members: Sequence[ModelVersion]) -> dict[str, float]:
    tolerances = [member.card.tolerance for member in members]
    return {
        precision: max(tolerance[precision] for tolerance in tolerances)
        for precision in tolerances[0]
        if all(precision in tolerance for tolerance in tolerances)
    }
