"""Rules about other pods on a real API server, where defaults, merged keys and namespaces are real."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.integration.harness import Json, Scheduler
from tests.integration.workbench import Workbench

pytestmark = pytest.mark.usefixtures("true_picture")

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
APP = {"labelSelector": {"matchLabels": {"app": "web"}}}
HOST: Json = {"topologyKey": "kubernetes.io/hostname", **APP}
ZONE: Json = {"topologyKey": "zone", **APP}
WEB = {"app": "web"}


def nodes(bench: Workbench) -> None:
    for i in range(4):
        name = f"node-{i}"
        bench.node(name, labels={"kubernetes.io/hostname": name, "zone": "ab"[i % 2]})


def test_one_per_host_and_no_more(bench: Workbench, scheduler: Scheduler) -> None:
    nodes(bench)
    apart: Json = {"podAntiAffinity": {REQUIRED: [HOST]}}
    for i in range(4):
        bench.pod(f"web-{i}", labels=WEB, affinity=apart)
    taken = bench.wait_bound(*(f"web-{i}" for i in range(4)))
    assert sorted(taken) == [f"node-{i}" for i in range(4)]
    bench.pod("one-too-many", labels=WEB, affinity=apart)
    assert bench.wait_unschedulable("one-too-many") == (
        "0/4 nodes are available: 4 node(s) didn't match pod anti-affinity rules. "
        "preemption: 0/4 nodes are available: 4 No preemption victims found for incoming pod."
    )
    bench.pod("says-nothing", labels=WEB)
    assert bench.wait_unschedulable("says-nothing") == (
        "0/4 nodes are available: 4 node(s) didn't satisfy existing pods anti-affinity rules. "
        "preemption: 0/4 nodes are available: 4 No preemption victims found for incoming pod."
    )
    bench.pod("somebody-else")
    bench.wait_bound("somebody-else")
    bench.remove("web-2")
    (place,) = bench.wait_bound("one-too-many")
    assert place == taken[2]


def test_zones_get_equal_shares(bench: Workbench, scheduler: Scheduler) -> None:
    nodes(bench)
    even = [{**ZONE, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": ["revision"]}]
    for revision in ("old", "new"):
        names = [f"{revision}-{i}" for i in range(4)]
        for name in names:
            bench.pod(name, labels={**WEB, "revision": revision}, topologySpreadConstraints=even)
        places = bench.wait_bound(*names)
        assert Counter(int(place[-1]) % 2 for place in places) == {0: 2, 1: 2}


def test_namespaces_are_found_by_their_labels(bench: Workbench, scheduler: Scheduler) -> None:
    nodes(bench)
    bench.pod("leader", labels=WEB, nodeSelector={"zone": "b"})
    bench.wait_bound("leader")
    team = {"matchLabels": {"team": bench.namespace}}
    bench.pod("follower", affinity={"podAffinity": {REQUIRED: [{**ZONE, "namespaceSelector": team}]}})
    assert bench.wait_unschedulable("follower") == (
        "0/4 nodes are available: 4 node(s) didn't match pod affinity rules. "
        "preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling."
    )
    label: Json = {"metadata": {"labels": {"team": bench.namespace}}}
    bench.api.patch(f"/api/v1/namespaces/{bench.namespace}", label)
    (place,) = bench.wait_bound("follower")
    assert place in ("node-1", "node-3")
