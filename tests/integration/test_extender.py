"""A real kube-scheduler asks the extender, and goes by what it says."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import ControlPlane, node_manifest, pod_manifest
from tests.integration.extending import Extender, Recorder, asking, start_kube_scheduler
from tests.integration.harness import Json
from tests.integration.observer import Observer, node_of

FEW, FULL = (40, 200), (200, 2000)
"""(nodes, pods): as `make test` and as `make extender-full` has them."""


@pytest.fixture
def own_plane() -> Iterator[ControlPlane]:
    """With kwok, which runs what is bound."""
    with ControlPlane(controller_manager=False, kwok=True) as plane:
        yield plane


def judge(recorder: Recorder) -> int:
    """Every bind must be to one of the nodes that the last scores of the pod called the best of those passed,
    and that the last filter let pass; returns how many were chosen among several."""
    scores: dict[str, dict[str, int]] = {}
    passed: dict[str, list[str]] = {}
    chosen = 0
    for exchange in recorder.exchanges:
        assert exchange.status == 200, exchange
        asked, answered = exchange.asked, exchange.answered
        match exchange.verb:
            case "filter":
                uid = asked["Pod"]["metadata"]["uid"]
                passed[uid], scores[uid] = names_of(answered), {}
                assert set(passed[uid]) <= set(names_of(asked))
            case "prioritize":
                scores[asked["Pod"]["metadata"]["uid"]] = by_host = {
                    each["Host"]: each["Score"] for each in answered
                }
                assert sorted(by_host) == sorted(names_of(asked))
                assert max(by_host.values()) == 10
                assert min(by_host.values()) >= 0
            case "bind":
                uid, node = asked["PodUID"], asked["Node"]
                if scores[uid]:
                    assert scores[uid][node] == 10, f"{node} is not among the best: {scores[uid]}"
                    chosen += 1
                else:
                    assert passed[uid] == [node], "without scores there must have been one node"
    return chosen


def names_of(message: Json) -> list[str]:
    if message["NodeNames"] is not None:
        names: list[str] = message["NodeNames"]
        return names
    return [node["metadata"]["name"] for node in message["Nodes"]["items"] or ()]


@pytest.mark.parametrize("cached", [True, False], ids=["names", "nodes"])
def test_every_pod_goes_to_one_of_the_best_nodes(own_plane: ControlPlane, log: Path, cached: bool) -> None:
    nodes, pods = FULL if os.environ.get("WHOLEPOD_EXTENDER_FULL") else FEW
    place_and_judge(own_plane, log, nodes=nodes, pods=pods, cached=cached)


def place_and_judge(plane: ControlPlane, log: Path, *, nodes: int, pods: int, cached: bool) -> None:
    rng = random.Random(7)
    with (
        Observer(plane, "/api/v1/pods") as seen,
        Extender(kubeconfig=plane.kubeconfig, log=log) as extender,
        Recorder(extender.extender_url) as recorder,
    ):
        for i in range(nodes):
            plane.api.create(node_manifest(f"node-{i}", memory="32Gi", cpu="16"))
        start_kube_scheduler(plane, asking(recorder.url, nodeCacheCapable=cached))
        for i in range(pods):
            requests = {
                "memory": f"{rng.choice((256, 512, 1024, 3072))}Mi",
                "cpu": f"{rng.choice((100, 250, 500))}m",
            }
            plane.api.create(pod_manifest(f"pod-{i}", requests, scheduler_name="default-scheduler"))
        seen.wait(lambda found: sum(map(bool, map(node_of, found.values()))) == pods, "all pods are bound")
        extender.check_cache()
        assert extender.metric("wholepod_extender_binds_total", outcome="Bound") == pods
        assert judge(recorder) >= pods * 0.9, "there was little to choose from"
