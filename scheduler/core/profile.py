"""A profile: which plugins decide for the pods of one schedulerName, in which order, with which weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import msgspec

from scheduler.api_objects import ClusterObject
from scheduler.core.gangs.gang import GangPolicy
from scheduler.core.plugin import FilterPlugin, Plugin, PostFilterPlugin, ScorePlugin
from scheduler.core.pod_info import PodInfo

Key = bytes
"""Pods with equal keys get equal answers."""


@dataclass(frozen=True)
class WeightedScore:
    plugin: ScorePlugin
    weight: int


@dataclass(frozen=True)
class Profile:
    """filters run in order; the first one that rejects a node counts in events."""

    scheduler_name: str
    filters: Sequence[FilterPlugin]
    scores: Sequence[WeightedScore]
    post_filters: Sequence[PostFilterPlugin] = ()
    """Asked in order when no node fits, until one has made room."""
    gangs: GangPolicy = field(default_factory=GangPolicy)
    """What gangs may ask for."""

    @property
    def watches(self) -> frozenset[type[ClusterObject]]:
        """Kinds of objects that any of the plugins reads."""
        plugins: list[Plugin] = [
            *self.filters,
            *(score.plugin for score in self.scores),
            *self.post_filters,
        ]
        return frozenset(kind for plugin in plugins for kind in plugin.watches)

    @property
    def makes_plans(self) -> bool:
        """Whether a placed pod may have a plan for its volumes, which somebody must be able to write."""
        return any(type(plugin).plan is not FilterPlugin.plan for plugin in self.filters)


def key_reader(plugins: Iterable[Plugin]) -> Callable[[PodInfo], Key]:
    """A function that reads all the fields these plugins read, as one hashable value."""
    return field_reader({field for plugin in plugins for field in plugin.reads})


def field_reader(fields: Iterable[str]) -> Callable[[PodInfo], Key]:
    """A function that reads these fields of a pod, as one hashable value."""
    ordered = sorted(fields)
    if not ordered:
        return lambda pod: b""
    read: Callable[[PodInfo], Any] = attrgetter(*ordered)
    encode = msgspec.msgpack.Encoder(order="deterministic").encode
    return lambda pod: encode(read(pod))
