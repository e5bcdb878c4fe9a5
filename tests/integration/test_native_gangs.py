"""Kubernetes' own PodGroups, which an API server serves when a gate and `--runtime-config` say so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cluster import ControlPlane
from tests.cluster.api import pod_manifest
from tests.cluster.assets import asked_minor
from tests.cluster.flags import POD_GROUPS_GATES, POD_GROUPS_SERVED
from tests.integration.harness import Json, Scheduler
from tests.integration.observer import Observer
from tests.integration.workbench import Workbench

GROUPS = "/apis/scheduling.k8s.io/v1beta1"

pytestmark = pytest.mark.skipif(asked_minor() is not None, reason="v1beta1 is served since Kubernetes 1.37")


def told(groups: Mapping[str, Json], status: str) -> Json | None:
    """The only group's condition, if it is so."""
    for found in groups.values():
        for condition in found.get("status", {}).get("conditions", ()):
            if (condition["type"], condition["status"]) == ("PodGroupInitiallyScheduled", status):
                return dict(condition)
    return None


def test_a_native_gang_is_bound_and_its_group_told(log: Path) -> None:
    with (
        ControlPlane(
            controller_manager=False,
            feature_gates=POD_GROUPS_GATES,
            runtime_config=POD_GROUPS_SERVED,
        ) as plane,
        Observer(plane, "/api/v1/pods") as pods,
        Observer(plane, "/apis/events.k8s.io/v1/events") as events,
        Observer(plane, f"{GROUPS}/podgroups") as groups,
        Scheduler("--leader-elect=false", kubeconfig=plane.kubeconfig, log=log),
    ):
        bench = Workbench(plane, pods, events)
        bench.node("small", memory="1Gi")
        group: Json = {
            "apiVersion": "scheduling.k8s.io/v1beta1",
            "kind": "PodGroup",
            "metadata": {"name": "g", "namespace": bench.namespace},
            "spec": {"schedulingPolicy": {"gang": {"minCount": 2}}},
        }
        bench.api.create(group)
        for name in ("a", "b"):
            manifest = pod_manifest(
                name, {"memory": "1Gi"}, namespace=bench.namespace, schedulingGroup={"podGroupName": "g"}
            )
            bench.api.create(manifest)
        refused = groups.wait(lambda seen: told(seen, "False"), "the group is told why it waits")
        assert (refused["reason"], refused["message"]) == (
            "Unschedulable",
            "minCount (2) cannot be satisfied: 1 scheduled, 0 remaining, "
            "0/1 nodes are available: 1 Insufficient memory.",
        )
        bench.node("large", memory="2Gi")
        bench.wait_bound("a", "b")
        placed = groups.wait(lambda seen: told(seen, "True"), "the group is told that it was placed")
        assert (placed["reason"], placed["message"]) == ("Scheduled", "")
        surplus = pod_manifest(
            "c", {"memory": "9Gi"}, namespace=bench.namespace, schedulingGroup={"podGroupName": "g"}
        )
        bench.api.create(surplus)
        bench.wait_unschedulable("c")
        assert groups.ask(lambda seen: told(seen, "True")) == placed
