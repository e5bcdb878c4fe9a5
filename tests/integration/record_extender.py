"""Records what a real kube-scheduler asks an extender, for the unit tests to replay.

`python -m tests.integration.record_extender` writes tests/unit/extender/recorded/{names,nodes}.json: the
cluster at first, then each request with the answer that it got, in order. All verbs, in both cache modes.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.cluster import ControlPlane, node_manifest, pod_manifest
from tests.integration.extending import Extender, Recorder, asking, priority_class, start_kube_scheduler
from tests.integration.harness import Json
from tests.integration.observer import Observer, node_of

FOLDER = Path(__file__).parents[1] / "unit" / "extender" / "recorded"
MODES = {"names": True, "nodes": False}
NAME = "default-scheduler"
PODS = "/api/v1/namespaces/default/pods"


def record(mode: str, folder: Path) -> None:
    with (
        ControlPlane(controller_manager=False) as plane,
        Observer(plane, "/api/v1/pods") as pods,
        Extender(kubeconfig=plane.kubeconfig, log=folder / f"{mode}.log") as extender,
        Recorder(extender.extender_url) as recorder,
    ):
        for i, (memory, cpu) in enumerate((("8Gi", "4"), ("4Gi", "4"), ("2Gi", "2"))):
            plane.api.create(node_manifest(f"node-{i}", memory=memory, cpu=cpu))
        nodes = plane.api.get("/api/v1/nodes")["items"]
        start_kube_scheduler(plane, asking(recorder.url, nodeCacheCapable=MODES[mode]))

        def wait_bound(name: str) -> None:
            pods.wait(lambda seen: node_of(seen.get(f"default/{name}")), f"{name} is bound")

        def place(name: str, memory: str, cpu: str) -> None:
            requests = {"memory": memory, "cpu": cpu}
            plane.api.create(pod_manifest(name, requests, scheduler_name=NAME))
            wait_bound(name)

        for i, memory in enumerate(("1Gi", "3Gi", "512Mi", "3Gi", "1Gi", "2Gi", "1Gi")):
            place(f"pod-{i}", memory, "250m")
        plane.api.create(priority_class(1000))
        urgent = pod_manifest(
            "urgent", {"memory": "3Gi"}, scheduler_name=NAME, priorityClassName="extender-1000"
        )
        plane.api.create(urgent)

        def victims(seen: Mapping[str, Json]) -> list[str]:
            return [key for key, pod in seen.items() if pod["metadata"].get("deletionTimestamp")]

        for key in pods.wait(victims, "somebody is evicted"):
            plane.api.delete(f"{PODS}/{key.partition('/')[2]}", gracePeriodSeconds="0")
        wait_bound("urgent")
    exchanges = [
        {"verb": each.verb, "request": each.asked, "status": each.status, "answer": each.answered}
        for each in recorder.exchanges
    ]
    content = {"nodes": [_trimmed(node) for node in nodes], "exchanges": exchanges}
    (FOLDER / f"{mode}.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def _trimmed(node: Json) -> Json:
    node["metadata"].pop("managedFields", None)
    return node


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for each in MODES:
            record(each, Path(scratch))
