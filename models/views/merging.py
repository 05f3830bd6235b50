"""Scores of several views -> scores of the image, under one of two rules."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.views.base import Classifier, Scores, ViewContext, ViewOutput
from models.views.pooling import member_logits, view_logits

SMALLEST = np.float32(np.finfo(np.float32).tiny)  # what softmax gives as 0 has a logarithm all the same


def merge_scores(outputs: Sequence[ViewOutput], context: ViewContext) -> Scores:
    """Average over views, and over an ensemble's members by their shares: of logits, then softmax; or of
    each one's softmax. The temperature comes last, so that it changes no ranking.
    """
    if len(outputs) == 1 and not context.classifier.members:  # most images: the same numbers, sooner
        alone = view_logits(outputs[0], context)
        return Scores(alone, softmax(alone / np.float32(context.fitted.temperature)), 1)
    logits = np.stack([member_logits(output, context) for output in outputs])  # [V, M, K]
    shares = member_shares(context.classifier)
    mean_logits = shares @ logits.mean(axis=0)
    probabilities = (
        softmax(mean_logits) if context.merge == "logits" else shares @ softmax(logits).mean(axis=0)
    )
    return Scores(mean_logits, temper(probabilities, context.fitted.temperature), len(outputs))


def temper(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Probabilities float32 [..., K] to the power of 1 / temperature, made to sum to 1 again.

    For a softmax that is its logits divided by the temperature. Guo et al. 2017, section 4.2.
    """
    if temperature == 1:
        return probabilities
    logarithms: NDArray[np.float32] = np.log(np.maximum(probabilities, SMALLEST))
    return softmax(logarithms / np.float32(temperature))


def member_shares(classifier: Classifier) -> NDArray[np.float32]:
    """What each member counts in an ensemble's scores: float32 [M], sums to 1; [1] for one network."""
    return np.array([layer.share for layer in classifier.members] or [1.0], np.float32)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 [..., K] -> float32 [..., K], each row summing to 1."""
    # The ufuncs themselves: the methods named max and sum are Python, and dearer than ten numbers.
    highest: NDArray[np.float32] = np.maximum.reduce(logits, axis=-1, keepdims=True)
    powers: NDArray[np.float32] = np.exp(logits - highest)
    total: NDArray[np.float32] = np.add.reduce(powers, axis=-1, keepdims=True)
    probabilities: NDArray[np.float32] = powers / total
    return probabilities


def margin(probabilities: NDArray[np.float32]) -> float:
    """The distance between the best class and the next, 0..1; 1 if there is one class only."""
    if len(probabilities) < 2:
        return 1.0
    second, first = np.partition(probabilities, -2)[-2:]
    return float(first - second)
