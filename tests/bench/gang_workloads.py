"""Workloads of gangs: scheduler_perf's GangScheduling, and gangs of many sizes on a cluster nearly full.

The first two are `5000Nodes_1000Gangs_3000Pods` and `5000Nodes_3Gangs_3000Pods_1000PerGroup` of
test/integration/scheduler_perf/podgroup/gangscheduling. In the others each node is filled to between 80 and
100 %. In the last a large gang waits from the start that nearly fits: an attempt at it costs hundreds of
placements, so a scheduler had better not repeat it for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.bench.workloads import Group, Shape, Template

FLOOR = 2.5
"""The ratio to kube-scheduler's throughput that is wanted."""


def _fill(number: int) -> Mapping[str, str]:
    """3.2 to 4 of a node's 4 CPU, and as much of its 32 GiB; neighbours differ."""
    eighths = number * 37 % 9
    return {"cpu": f"{3200 + 100 * eighths}m", "memory": f"{26214 + 819 * eighths}Mi"}


def _different(number: int) -> Mapping[str, str]:
    """Members of one gang differ, too."""
    return {"cpu": f"{100 * (1 + number % 4)}m", "memory": f"{500 * (1 + number % 4)}Mi"}


def _shape(
    name: str,
    models: str,
    member: Template,
    *gangs: tuple[int, int],
    placed: Sequence[Group] = (),
    waiting: Group | None = None,
) -> Shape:
    pods = sum(count * size for count, size in gangs)
    return Shape(name, models, member, pods=pods, gangs=gangs, placed=placed, waiting=waiting, floor=FLOOR)


_MEMBER = Template(requests=lambda _: {"cpu": "100m", "memory": "100Mi"})
_MIXED = Template(requests=_different)
_FILLED = Group(Template(requests=_fill), 5000)
_NEARLY_FITS = Template(requests=lambda _: {"cpu": "800m", "memory": "1Gi"})

_ALL = (
    _shape("small", "GangScheduling, 1,000 gangs of 3", _MEMBER, (1000, 3)),
    _shape("large", "GangScheduling, 3 gangs of 1,000", _MEMBER, (3, 1000)),
    _shape(
        "full",
        "gangs of 2 to 300, of members of four sizes, on nodes that are 90 % full",
        _MIXED,
        (2, 300),
        (8, 100),
        (30, 20),
        (100, 6),
        (200, 2),
        placed=[_FILLED],
    ),
    _shape(
        "waiting",
        "gangs of 4 to 100 on such nodes, while one of 600 waits for which there is not quite enough room",
        _MIXED,
        (2, 100),
        (20, 20),
        (100, 4),
        placed=[_FILLED],
        waiting=Group(_NEARLY_FITS, 600, gang_size=600),
    ),
)
GANG_SHAPES: Mapping[str, Shape] = {shape.name: shape for shape in _ALL}
