"""Wholepod in kube-scheduler's place: the static pod of deploy/default-scheduler, and the way back."""

from __future__ import annotations

import yaml

from tests.cluster.kind import cluster
from tests.cluster.kind.config import NAME
from tests.e2e.kind.manifests import Json, container, daemon_set, pod, spec
from tests.e2e.kind.stage import IMAGE, Stage, expect, until, where
from tests.image.base import ROOT
from tests.integration.observer import condition

FOLDER = ROOT / "deploy" / "default-scheduler"
CONTROL_PLANE = f"{NAME}-control-plane"
PLACE = "/etc/kubernetes/manifests/kube-scheduler.yaml"
NEW = "/etc/kubernetes/kube-scheduler.yaml.new"
KEPT = "/etc/kubernetes/kube-scheduler.yaml.kept"


def in_kube_schedulers_place(stage: Stage) -> str:
    """Pods that name no scheduler are placed by it, daemons too; then kube-scheduler is put back."""
    manifest = yaml.safe_load((FOLDER / "kube-scheduler.yaml").read_text())
    manifest["spec"]["containers"][0] |= {"image": IMAGE, "imagePullPolicy": "Never"}
    theirs = _leader(stage)
    cluster.kubectl("apply", f"--filename={FOLDER / 'gangs.yaml'}")
    stage.in_node(CONTROL_PLANE, "cp", "-p", PLACE, KEPT)
    try:
        text = yaml.safe_dump(manifest).encode()
        # Complete or not at all, for the kubelet runs every file of the folder.
        script = f"umask 077; cat >{NEW} && mv {NEW} {PLACE}"
        stage.in_node(CONTROL_PLANE, "sh", "-c", script, stdin=text)
        until(lambda: _image(stage) == IMAGE, "the static pod runs Wholepod, and is ready")
        ours = until(lambda: (now := _leader(stage)) != theirs and now, "it leads")
        with stage.namespace("default-scheduler") as namespace:
            of = spec(container("main", "hold", "1"), scheduler=None)
            stage.apply(pod(namespace, "single", of), daemon_set(namespace, "agent", of))
            placed = stage.running(namespace, 4, "a pod and a DaemonSet")
            stage.placed_by(placed, "default-scheduler")
            expect(_leader(stage) == ours, "the lease changed hands meanwhile")
    finally:
        stage.in_node(CONTROL_PLANE, "mv", KEPT, PLACE)
    until(lambda: _image(stage) not in ("", IMAGE), "kube-scheduler is back, and ready")
    cluster.kubectl("delete", f"--filename={FOLDER / 'gangs.yaml'}")
    return (
        f"one pod and a DaemonSet without a scheduler's name: {where(placed)}; then kube-scheduler came back"
    )


def _leader(stage: Stage) -> str:
    return stage.holder("kube-system", "kube-scheduler")


def _image(stage: Stage) -> str:
    """What the static pod runs; "" while it is not ready."""
    pods = stage.pods("kube-system")
    found = [each for each in pods if each["metadata"]["labels"].get("component") == "kube-scheduler"]
    ready: list[Json] = [each for each in found if condition(each, "Ready").get("status") == "True"]
    return str(ready[0]["spec"]["containers"][0]["image"]) if len(found) == len(ready) == 1 else ""
