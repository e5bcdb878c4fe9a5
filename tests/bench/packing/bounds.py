"""A lower bound on the number of nodes, to measure policies against."""

import math
from collections.abc import Iterable

import numpy as np

_THRESHOLDS = 400


def least_nodes(sizes: Iterable[float], capacity: float) -> int:
    """Fewest bins of `capacity` that hold all `sizes`, from below, in one dimension.

    Martello and Toth's bound L2 ("Lower bounds and reduction procedures for the bin packing
    problem", 1990): for each threshold t, items above capacity - t share a bin with nothing above
    t, items above a half never share one, and the rest needs at least its volume. At most 400
    thresholds are tried, which can only make the bound lower.
    """
    sorted_sizes = np.sort(np.asarray(list(sizes), np.float64))
    thresholds = np.concatenate([[0.0], np.unique(sorted_sizes[sorted_sizes <= capacity / 2])])
    if len(thresholds) > _THRESHOLDS:
        thresholds = thresholds[np.linspace(0, len(thresholds) - 1, _THRESHOLDS).astype(int)]
    best = 0
    for threshold in thresholds:
        huge = sorted_sizes > capacity - threshold
        large = (sorted_sizes > capacity / 2) & ~huge
        small = (sorted_sizes >= threshold) & ~huge & ~large
        room_beside_large = large.sum() * capacity - sorted_sizes[large].sum()
        overflow = math.ceil((sorted_sizes[small].sum() - room_beside_large) / capacity - 1e-9)
        best = max(best, int(huge.sum() + large.sum()) + max(0, overflow))
    return best
