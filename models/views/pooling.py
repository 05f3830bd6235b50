"""Scores of a view larger than the native crop, from its last feature map: windows, as the paper's test does.

He et al. 2015, section 3.4, in the form of its reference [41] (Simonyan and Zisserman 2015, section 3.2): the
classifier slides over the image, and its scores are averaged over positions.

One window is k x k features (7 x 7, or 8 x 8 for CIFAR networks), averaged, then the classifier (W, b).
Averaging is linear and so is the classifier, so the mean of all windows' scores is the score of the mean of
all windows' averages:

    mean_p (W avg_p(F) + b)  =  W (mean_p avg_p(F)) + b

and mean_p avg_p(F) is a weighted mean of the features: feature (i, j) counts once for each window that covers
it. Windows are squares, so the count is a product: rows[i] windows of one column cover row i, with

    rows[i] = min(i, h - k) - max(0, i - k + 1) + 1        (the starts from i - k + 1 to i that exist)

and rows sum to k (h - k + 1). One pass over the map replaces (h - k + 1)(w - k + 1) poolings; at the native
size all weights are equal and the result is global average pooling.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from models.views.base import ViewContext, ViewOutput


def view_logits(output: ViewOutput, context: ViewContext) -> NDArray[np.float32]:
    """The scores of one view under the context's pool rule, float32 [K]."""
    features, window = output.features, context.window
    if features is None or context.pool == "global" or features.shape[1:] == (window, window):
        return output.logits
    pooled = pool_windows(features, window)
    scores: NDArray[np.float32] = context.classifier.weight @ pooled + context.classifier.bias
    return scores


def member_logits(output: ViewOutput, context: ViewContext) -> NDArray[np.float32]:
    """The scores of one view by every member of an ensemble, float32 [M, K]; M is 1 for one network."""
    layers = context.classifier.members
    if not layers:
        return view_logits(output, context)[None]
    features, window = output.features, context.window
    if features is None or context.pool == "global" or features.shape[1:] == (window, window):
        assert output.members is not None  # an ensemble's engine always tells
        return output.members
    ends = np.cumsum([layer.weight.shape[1] for layer in layers])
    parts = np.split(pool_windows(features, window), ends[:-1])
    scores = [layer.weight @ part + layer.bias for layer, part in zip(layers, parts, strict=True)]
    return np.stack(scores)


def pool_windows(features: NDArray[np.float32], window: int) -> NDArray[np.float32]:
    """features: float32 [C, h, w]; the mean over all windows of their averages, float32 [C]."""
    rows = _coverage(features.shape[1], window)
    columns = _coverage(features.shape[2], window)
    pooled: NDArray[np.float32] = np.einsum("chw,hw->c", features, rows[:, None] * columns)
    return pooled


@lru_cache(maxsize=1024)
def _coverage(size: int, window: int) -> NDArray[np.float32]:
    """The share of all windows' positions along one side that falls on each: float32 [size], sums to 1."""
    window = min(window, size)
    at = np.arange(size)
    counts = np.minimum(at, size - window) - np.maximum(0, at - window + 1) + 1
    shares: NDArray[np.float32] = (counts / counts.sum()).astype(np.float32)
    return shares
