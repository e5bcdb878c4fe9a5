"""Free memory and its fragmentation: how much of it whole pods could use."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import GaugeMetricFamily, Metric

POD_SIZES = {
    "256Mi": 1 << 28,
    "1Gi": 1 << 30,
    "4Gi": 1 << 32,
    "16Gi": 1 << 34,
    "64Gi": 1 << 36,
    "256Gi": 1 << 38,
}
"""Label → bytes."""


def room(free_bytes: NDArray[np.int64]) -> Iterator[Metric]:
    """`free_bytes`: of each node; below zero where others' pods have overfilled one."""
    free = np.maximum(free_bytes, 0)
    usable = GaugeMetricFamily(
        "wholepod_node_memory_usable_bytes",
        "Free memory that pods of this size could get, by memory alone.",
        labels=["pod_size"],
    )
    for label, size in POD_SIZES.items():
        usable.add_metric([label], int((free // size).sum()) * size)
    yield usable
    yield GaugeMetricFamily(
        "wholepod_node_memory_largest_free_bytes",
        "The most memory that is free on one node.",
        value=int(free.max(initial=0)),
    )
