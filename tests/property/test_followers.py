"""Plugins that look beyond a node follow pods that come and go, and say what they would say anew.

Here it is mostly pods that change, as in a cluster; with node objects changing at every other step,
followers would be made anew so often that their mistakes would not show.
"""

from __future__ import annotations

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

nodes = st.builds(
    lambda zone, host, tainted: (zone, host, tainted),
    st.sampled_from(["a", "b", "c", "", None]),
    st.sampled_from([True, True, True, False]),
    st.sampled_from([False, False, True]),
)
pods = st.tuples(
    st.just("pod"),
    st.integers(0, 9),
    st.integers(0, NODES - 1),
    st.sampled_from(["x", "x", "y", None]),
    st.sampled_from(AFFINITIES),
    st.sampled_from([False, False, False, True]),
)
gone = st.tuples(st.just("no pod"), st.integers(0, 9))
rare = st.one_of(
    st.tuples(st.just("node"), st.integers(0, NODES - 1), nodes),
    st.tuples(st.just("no node"), st.integers(0, NODES - 1)),
    st.tuples(st.just("namespace"), st.sampled_from([None, {}, {"team": "devops"}])),
    st.tuples(st.just("service"), st.sampled_from([{"app": "x"}, {"app": "y"}, None])),
)
steps = st.one_of(pods, pods, pods, pods, gone, gone, gone, rare)


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
@given(
    first=st.lists(nodes, min_size=3, max_size=NODES),
    history=st.lists(st.lists(steps, min_size=1, max_size=3), min_size=4, max_size=15),
)
@settings(deadline=None)
def test_what_follows_is_what_is_made_anew(
    changes_kept: int,
    tallies_kept: int,
    first: list[tuple[str | None, bool, bool]],
    history: list[list[tuple[Any, ...]]],
) -> None:
    """Pods without constraints are spread as the Service says."""
    state = ClusterState(ShapeMix().frozen)
    table = state.nodes
    table.pods = PodIndex(table.row_of, table.row_generation.size, columns_kept=tallies_kept)
    apply(state, ("service", {"app": "x"}))
    for number, fields in enumerate(first):
        apply(state, ("node", number, fields))
    plugins = RemotePlugins(make_profile(preset="kube"), table)
    kept: list[dict[Context, RemoteAnswers]] = [{} for _ in KINDS]
    with mock.patch.object(tally, "KEPT", changes_kept):
        for some in history:
            for step in some:
                apply(state, step)
            for kind, answers in zip(KINDS, kept, strict=True):
                assert said(plugins.answers(kind, answers), table.generation, len(table)) == said(
                    plugins.answers(kind, {}), table.generation, len(table)
                )


def said(answers: RemoteAnswers, seed: int, n: int) -> list[list[int]]:
    """Everything, with scores for all nodes and for some of them."""
    found: list[list[int]] = []
    if answers.filters is not None:
        rejected = answers.filters.bits != 0
        found += [
            answers.filters.first.tolist(),
            answers.filters.bits.tolist(),
            answers.filters.unresolvable[rejected].tolist(),
        ]
    some = np.flatnonzero(np.random.default_rng(seed // 3).random(n) < 0.7)
    for rows, count in ((slice(0, n), n), (some, len(some))):
        if answers.scores and count:
            found.append(answers.rank(rows, count).tolist())
    return found
