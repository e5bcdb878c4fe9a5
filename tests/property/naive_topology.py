"""Affinity, anti-affinity and spreading as the naive model sees them: loops over pods, nothing kept.

A term is (value of the label `app`, node label). All pods are in one namespace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Term = tuple[str, str]
Labels = Mapping[str, str]
Json = dict[str, Any]

SKEWED = "node(s) didn't match pod topology spread constraints"
UNLABELLED = f"{SKEWED} (missing required label)"
FAR = "node(s) didn't match pod affinity rules"
NEAR = "node(s) didn't match pod anti-affinity rules"
UNWELCOME = "node(s) didn't satisfy existing pods anti-affinity rules"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


@dataclass(frozen=True)
class Seen:
    """A pod on a node, as others' rules see it."""

    node: Labels
    app: str | None
    terminating: bool
    avoids: Term | None
    follows: Term | None


@dataclass(frozen=True)
class Rules:
    """What a pod asks for."""

    app: str | None
    follows: Term | None
    avoids: Term | None
    spreads: str | None
    """Spreads over zones with the pods of this app, at most one more than in any other zone."""

    def rejection(self, node: Labels, counted: Iterable[Labels], pods: list[Seen]) -> str | None:
        """Why the node won't do; `counted` are the nodes that count for spreading."""
        if self.spreads is not None:
            if "zone" not in node:
                return UNLABELLED
            per_zone = Counter({n["zone"]: 0 for n in counted if "zone" in n})
            zones = set(per_zone)
            for pod in pods:
                if pod.node in counted and pod.app == self.spreads and not pod.terminating:
                    per_zone[pod.node.get("zone", "")] += 1
            fewest = min((per_zone[zone] for zone in zones), default=0)
            if per_zone[node["zone"]] + (self.app == self.spreads) - fewest > 1:
                return SKEWED
        if self.follows is not None and not self._follows(node, pods):
            return FAR
        if self.avoids is not None and any(
            pod.app == self.avoids[0] and _together(node, pod.node, self.avoids[1]) for pod in pods
        ):
            return NEAR
        if any(
            pod.avoids is not None and pod.avoids[0] == self.app and _together(node, pod.node, pod.avoids[1])
            for pod in pods
        ):
            return UNWELCOME
        return None

    def _follows(self, node: Labels, pods: list[Seen]) -> bool:
        assert self.follows is not None
        app, key = self.follows
        leaders = [pod for pod in pods if pod.app == app and key in pod.node]
        if not leaders and self.app == app:
            return key in node
        return any(_together(node, pod.node, key) for pod in leaders)

    def concerns(self, pods: list[Seen]) -> frozenset[tuple[str, Term]]:
        """The rules of pods on nodes that mean this one, if any of them may keep it out."""
        found = frozenset(
            (kind, term)
            for pod in pods
            for kind, term in (("avoids", pod.avoids), ("follows", pod.follows))
            if term is not None and term[0] == self.app
        )
        return found if any(kind == "avoids" for kind, _ in found) else frozenset()

    def manifest(self) -> tuple[Json, list[Json]]:
        """(podAffinity and podAntiAffinity, topologySpreadConstraints)."""
        affinity = {}
        if self.follows is not None:
            affinity["podAffinity"] = {REQUIRED: [_term(self.follows)]}
        if self.avoids is not None:
            affinity["podAntiAffinity"] = {REQUIRED: [_term(self.avoids)]}
        constraints = []
        if self.spreads is not None:
            constraints = [
                {**_term((self.spreads, "zone")), "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
            ]
        return affinity, constraints


def _together(node: Labels, other: Labels, key: str) -> bool:
    return key in node and node[key] == other.get(key)


def _term(term: Term) -> Json:
    app, key = term
    return {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}}
