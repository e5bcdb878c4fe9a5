"""Free memory that whole pods could use."""

import numpy as np

from scheduler.observe.room import POD_SIZES, room

GIB = 1 << 30


def test_free_memory_is_rounded_down_to_whole_pods_on_each_node() -> None:
    usable, largest = room(np.array([5 * GIB, 3 * GIB + 1, GIB // 2, -GIB]))
    values = {sample.labels["pod_size"]: sample.value / GIB for sample in usable.samples}
    assert values == {"256Mi": 8.5, "1Gi": 8, "4Gi": 4, "16Gi": 0, "64Gi": 0, "256Gi": 0}
    assert values.keys() == POD_SIZES.keys()
    [sample] = largest.samples
    assert sample.value == 5 * GIB


def test_without_nodes_nothing_is_free() -> None:
    assert {sample.value for metric in room(np.zeros(0, np.int64)) for sample in metric.samples} == {0}
