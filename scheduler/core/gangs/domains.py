"""In which domain of a node label a gang is tried, and in which order.

A gang that must stay together in one domain is, to the domain, one big pod. So where each node is a
domain of its own, domains are tried in the order in which the profile would place one pod with all the
members' containers; larger ones by the room that would be left, the least first. Domains whose room
can't do in total are not tried at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from scheduler.core.gangs.rooms import Member
from scheduler.core.nodes import MEMORY, NodeTable
from scheduler.core.placement import Within
from scheduler.core.plugin import Mask
from scheduler.core.pod_info import PodInfo


def domain_mask(nodes: NodeTable, key: str, value: str) -> Mask:
    """bool[n]: the nodes of a domain."""
    column, n = nodes.label_column(key), len(nodes)
    known = column.id_of(value)
    return np.zeros(n, np.bool_) if known is None else np.asarray(column.ids[:n] == known, np.bool_)


def all_but(kept: frozenset[str], nodes: NodeTable) -> Within:
    """What is left to those from whom nodes are kept."""
    mask = np.ones(len(nodes), np.bool_)
    mask[[nodes.row_of[name] for name in kept if name in nodes.row_of]] = False
    return Within(mask, "node(s) are kept for a gang that has waited longer")


def domains_to_try(nodes: NodeTable, key: str, members: Sequence[Member], need: int) -> list[str]:
    """Values of the label, the most promising first."""
    n = len(nodes)
    column = nodes.label_column(key)
    ids = column.ids[:n]
    size = int(ids.max(initial=0)) + 1
    roomy = _with_room(nodes, ids, size, members, need)
    if not roomy.any():
        return []
    order: list[int] = []
    if np.bincount(ids, minlength=size)[1:].max(initial=0) == 1:
        whole = members[0].cycle
        pod = _as_one_pod(members)
        order = [int(ids[row]) for row in whole.choices(pod, whole.read_key(pod)).best_first]
    free = np.bincount(ids, weights=(nodes.allocatable - nodes.requested)[MEMORY, :n], minlength=size)
    order += np.argsort(free, kind="stable").tolist()
    return [column.values[i] or "" for i in dict.fromkeys(order) if i and roomy[i]]


def _with_room(
    nodes: NodeTable, ids: NDArray[np.int32], size: int, members: Sequence[Member], need: int
) -> Mask:
    """bool[domains]: whether the least that `need` members can ask for fits in total."""
    n = len(nodes)
    roomy = np.ones(size, np.bool_)
    names = {name for member in members for name in member.info.requests}
    for name in sorted(names):
        wanted = sum(sorted(member.info.requests.get(name, 0) for member in members)[:need])
        row = nodes.resources.get(name)
        if row is None:
            roomy &= wanted == 0
            continue
        free = np.maximum(nodes.allocatable[row, :n] - nodes.requested[row, :n], 0)
        # In floating point: of use to rule out what is far too small, so a hair is left.
        roomy &= np.bincount(ids, weights=free, minlength=size) * (1 + 1e-9) >= wanted
    return roomy


def _as_one_pod(members: Sequence[Member]) -> PodInfo:
    first = members[0].info.pod
    containers = [c for member in members for c in member.info.pod.spec.containers or ()]
    spec = msgspec.structs.replace(first.spec, containers=containers)
    return PodInfo(msgspec.structs.replace(first, spec=spec))


def values_of(nodes: NodeTable, key: str, names: Sequence[str]) -> Iterator[str]:
    """The label's values of these nodes, as far as they exist and have one."""
    for name in names:
        row = nodes.row_of.get(name)
        if row is not None:
            value = (nodes.objects[row].metadata.labels or {}).get(key)
            if value is not None:
                yield value
