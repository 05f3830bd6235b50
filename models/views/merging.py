"""Scores of several views -> scores of the image, under one of two rules."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.views.base import Scores, ViewContext, ViewOutput
from models.views.pooling import view_logits


def merge_scores(outputs: Sequence[ViewOutput], context: ViewContext) -> Scores:
    """Average over views: of logits, then softmax; or of each view's softmax. Temperature divides logits."""
    logits = np.stack([view_logits(output, context) for output in outputs])  # [V, K]
    mean_logits = logits.mean(axis=0)
    temperature = np.float32(context.fitted.temperature)
    if context.merge == "logits":
        probabilities = softmax(mean_logits / temperature)
    else:
        probabilities = softmax(logits / temperature).mean(axis=0)
    return Scores(mean_logits, probabilities, len(outputs))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 [..., K] -> float32 [..., K], each row summing to 1."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def margin(probabilities: NDArray[np.float32]) -> float:
    """The distance between the best class and the next, 0..1; 1 if there is one class only."""
    if len(probabilities) < 2:
        return 1.0
    second, first = np.partition(probabilities, -2)[-2:]
    return float(first - second)
