"""Plugins that look beyond a node follow pods that come and go, and say what they would say anew.

Here it is mostly pods that change, as in a cluster; with node objects changing at every other step,
followers would be made anew so often that their mistakes would not show.
"""

from __future__ import annotations

from random import Random
from typing import Any
from unittest import mock

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.api_objects import Service
from scheduler.core import tally
from scheduler.core.mix import ShapeMix
from scheduler.core.pod_index import PodIndex
from scheduler.core.pod_info import PodInfo
from scheduler.core.remote import Context, RemoteAnswers, RemotePlugins
from scheduler.core.state import ClusterState
from scheduler.plugins.domains import HOSTNAME
from tests.builders import NodeBuilder, make_node, make_pod, make_profile

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
ZONE = "topology.kubernetes.io/zone"
HARD, SOFT = "DoNotSchedule", "ScheduleAnyway"
Json = dict[str, Any]


def near(app: str, key: str, **fields: Any) -> Json:
    return {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}, **fields}


def wish(weight: int, term: Json) -> Json:
    return {"weight": weight, "podAffinityTerm": term}


def spread(action: str, key: str, app: str = "x", **fields: Any) -> Json:
    return {"maxSkew": 1, "whenUnsatisfiable": action, **near(app, key), **fields}


TEAM = {"namespaceSelector": {"matchLabels": {"team": "devops"}}}
AFFINITIES: list[Json] = [
    {},
    {"podAntiAffinity": {REQUIRED: [near("x", HOSTNAME)]}},
    {"podAntiAffinity": {REQUIRED: [near("x", ZONE), near("y", HOSTNAME, **TEAM)]}},
    {"podAffinity": {REQUIRED: [near("x", ZONE)]}},
    {"podAffinity": {REQUIRED: [near("x", ZONE), near("x", HOSTNAME, **TEAM)]}},
    {"podAffinity": {REQUIRED: [near("y", ZONE)]}, "podAntiAffinity": {REQUIRED: [near("x", HOSTNAME)]}},
    {"podAffinity": {PREFERRED: [wish(3, near("x", ZONE)), wish(1, near("y", HOSTNAME))]}},
    {"podAntiAffinity": {PREFERRED: [wish(2, near("x", HOSTNAME, **TEAM))]}},
]
SPREADS: list[list[Json]] = [
    [],
    [spread(HARD, ZONE)],
    [spread(HARD, ZONE), spread(HARD, HOSTNAME, maxSkew=2)],
    [spread(HARD, HOSTNAME, "y", minDomains=3), spread(SOFT, ZONE)],
    [spread(HARD, ZONE, nodeTaintsPolicy="Honor")],
    [spread(SOFT, ZONE, maxSkew=3), spread(SOFT, HOSTNAME, "y")],
    [spread(SOFT, ZONE, "y", nodeTaintsPolicy="Honor")],
]


def pod(name: str, app: str, affinity: Json, constraints: list[Json]) -> PodInfo:
    return (
        make_pod(name).labels(app=app).spec(affinity=affinity, topologySpreadConstraints=constraints).info()
    )


KINDS = [pod(f"{app}-{i}", app, affinity, []) for i, affinity in enumerate(AFFINITIES) for app in "xy"]
KINDS += [pod(f"spread-{i}", "x", {}, constraints) for i, constraints in enumerate(SPREADS)]
NODES = 6

ROUNDS = 40


def random_node(random: Random) -> tuple[str | None, bool, bool]:
    return random.choice(["a", "b", "c", "", None]), random.random() < 0.8, random.random() < 0.2


def random_pod(random: Random) -> tuple[Any, ...]:
    app = random.choice(["x", "x", "y", None])
    affinity = random.choice(AFFINITIES) if random.random() < 0.4 else {}
    return "pod", random.randrange(12), random.randrange(NODES), app, affinity, random.random() < 0.1


def random_step(random: Random) -> tuple[Any, ...]:
    chance = random.random()
    if chance < 0.95:
        return random_pod(random) if random.random() < 0.6 else ("no pod", random.randrange(12))
    if chance < 0.97:
        return "node", random.randrange(NODES), random_node(random)
    if chance < 0.98:
        return "no node", random.randrange(NODES)
    if chance < 0.99:
        return "namespace", random.choice([None, {}, {"team": "devops"}])
    return "service", random.choice([{"app": "x"}, {"app": "y"}, None])


def node(number: int, fields: tuple[str | None, bool, bool]) -> NodeBuilder:
    zone, host, tainted = fields
    name = f"n{number}"
    labels = {ZONE: zone} if zone is not None else {}
    made = make_node(name).labels({**labels, HOSTNAME: name} if host else labels)
    return made.taint("t") if tainted else made


def apply(state: ClusterState, step: tuple[Any, ...]) -> None:
    match step:
        case "pod", number, on, app, affinity, terminating:
            labels = {} if app is None else {"app": app}
            made = make_pod(f"p{number}").labels(**labels).spec(affinity=affinity).on(f"n{on}")
            state.confirm((made.terminating() if terminating else made).info())
        case "no pod", number:
            state.remove_pod(f"uid-of-default/p{number}")
        case "node", number, fields:
            state.upsert_node(node(number, fields).obj())
        case "no node", number:
            state.remove_node(f"n{number}")
        case "service", selector:
            service = {"metadata": {"name": "s", "namespace": "default"}, "spec": {"selector": selector}}
            state.nodes.cluster.upsert(msgspec.convert(service, Service))
        case "namespace", labels:
            state.nodes.pods.set_namespace("default", labels)


@pytest.mark.parametrize(("changes_kept", "tallies_kept"), [(tally.KEPT, 512), (4, 512), (tally.KEPT, 3)])
@settings(max_examples=settings().max_examples // 12)
@given(seed=st.integers(0, 2**32))
def test_what_follows_is_what_is_made_anew(changes_kept: int, tallies_kept: int, seed: int) -> None:
    """Pods without constraints are spread as the Service says."""
    random, state = Random(seed), ClusterState(ShapeMix().frozen)
    table = state.nodes
    table.pods = PodIndex(table.row_of, table.row_generation.size, columns_kept=tallies_kept)
    apply(state, ("service", {"app": "x"}))
    for number in range(random.randint(3, NODES)):
        apply(state, ("node", number, random_node(random)))
    plugins = RemotePlugins(make_profile(preset="kube"), table)
    kept: list[dict[Context, RemoteAnswers]] = [{} for _ in KINDS]
    with mock.patch.object(tally, "KEPT", changes_kept):
        for _ in range(ROUNDS):
            for _ in range(random.randint(1, 3)):
                apply(state, random_step(random))
            for kind, answers in zip(KINDS, kept, strict=True):
                lasting, anew = plugins.answers(kind, answers), plugins.answers(kind, {})
                some = [row for row in range(len(table)) if random.random() < 0.8]
                assert said(lasting, len(table), some) == said(anew, len(table), some), kind.name


def said(answers: RemoteAnswers, n: int, some: list[int]) -> list[list[int]]:
    """Everything, with scores for all nodes and for some of them."""
    found: list[list[int]] = []
    if answers.filters is not None:
        rejected = answers.filters.bits != 0
        found += [
            answers.filters.first.tolist(),
            answers.filters.bits.tolist(),
            answers.filters.unresolvable[rejected].tolist(),
        ]
    for rows, count in ((slice(0, n), n), (np.array(some, np.intp), len(some))):
        if answers.scores and count:
            found.append(answers.rank(rows, count).tolist())
    return found
