"""In kube-scheduler's place: the same command line, words, endpoints and manners.

The strings are not compared with copies of ours: the real kube-scheduler runs beside and says them.
"""

import json
import os
import re
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import node_manifest, pod_manifest
from tests.cluster.assets import asked_minor
from tests.integration.harness import Json, Scheduler, eventually
from tests.integration.observer import bound, condition
from tests.integration.proxy import Proxy
from tests.integration.rights import granted
from tests.integration.workbench import Workbench

ALONE = "--leader-elect=false"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
ZONE = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "x"}}}


def test_the_command_of_the_readme(bench: Workbench, log: Path) -> None:
    uv = os.environ.get("UV") or shutil.which("uv")
    assert uv is not None, "uv runs this project; is it on PATH?"
    with Scheduler(
        *("--scheduler-name=default-scheduler", ALONE, "--kube-api-qps=5000", "--kube-api-burst=5000"),
        command=[uv, "run", "--frozen", "wholepod"],
        environment={"KUBECONFIG": str(bench.plane.kubeconfig)},
        kubeconfig=None,
        log=log,
    ) as scheduler:
        bench.node("node")
        bench.api.create(
            pod_manifest("plain", {}, namespace=bench.namespace, scheduler_name="default-scheduler")
        )
        assert bench.wait_bound("plain") == ["node"]
        assert scheduler.terminate() == 0
    event = bench.wait_event("plain", "Scheduled")
    assert event["reportingController"] == "default-scheduler"


def test_kube_schedulers_own_role_is_enough(bench: Workbench, log: Path) -> None:
    kubeconfig = bench.plane.kubeconfig_for("system:kube-scheduler")
    with Scheduler(ALONE, "--scheduler-name=default-scheduler", kubeconfig=kubeconfig, log=log):
        bench.node("node")
        bench.pod("pod", scheduler_name="default-scheduler")
        bench.wait_bound("pod")
        bench.wait_event("pod", "Scheduled")
        bench.pod("big", "64Gi", scheduler_name="default-scheduler")
        bench.wait_unschedulable("big")
        # Only gangs need more than it grants, and say so.
        member = pod_manifest("member", {}, namespace=bench.namespace, scheduler_name="default-scheduler")
        member["metadata"]["annotations"] = {"wholepod.io/gang": "pair", "wholepod.io/min-count": "1"}
        bench.api.create(member)
        event = bench.wait_event("member", "WaitingForGang")
        assert "may not: create configmaps, get configmaps, update configmaps" in event["note"]


def test_two_profiles_in_one_process(bench: Workbench, log: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "apiVersion: wholepod.io/v1alpha1\n"
        "kind: SchedulerConfiguration\n"
        "profiles:\n"
        "- schedulerName: default-scheduler\n"
        "- schedulerName: packs\n"
        "  pluginConfig:\n"
        "  - name: MemoryFit\n"
        "    args: {objective: tight}\n"
    )
    bench.node("fuller", memory="8Gi")
    bench.node("emptier", memory="8Gi")
    bench.pod("first", "2Gi", cpu="2", nodeName="fuller")
    with Scheduler(ALONE, f"--config={config}", kubeconfig=bench.plane.kubeconfig, log=log) as scheduler:
        for name in ("default-scheduler", "packs"):
            bench.pod(f"of-{name}", scheduler_name=name)
        # Each places as it is meant to.
        assert bench.wait_bound("of-default-scheduler", "of-packs") == ["emptier", "fuller"]
        bench.pod("of-nobody", scheduler_name="nobody")
        bench.barrier("packs")
        assert bench.node_of("of-nobody") == ""
        for name in ("default-scheduler", "packs"):
            assert bench.wait_event(f"of-{name}", "Scheduled")["reportingController"] == name
            attempts = scheduler.metric("scheduler_schedule_attempts_total", result="scheduled", profile=name)
            assert attempts >= 1
        profiles = json.loads(scheduler.text("/configz"))["wholepod.io"]["profiles"]
        assert [profile["schedulerName"] for profile in profiles] == ["default-scheduler", "packs"]


# In kube-scheduler's words.

TAINT = {"key": "dedicated", "value": "x", "effect": "NoSchedule"}
ON_ROOMY = {"nodeSelector": {"kubernetes.io/hostname": "roomy"}}
NOWHERE = {
    "nodeAffinity": {
        REQUIRED: {
            "nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["nowhere"]}]}
            ]
        }
    }
}
PORT_80 = [{"name": "main", "image": "pause", "ports": [{"containerPort": 80, "hostPort": 80}]}]
CASES: dict[str, dict[str, Any]] = {
    "fits": ON_ROOMY,
    "memory": {"memory": "64Gi"},
    "memory-and-cpu": {"memory": "64Gi", "cpu": "100"},
    "other-disk": {"nodeSelector": {"disk": "ssd"}},
    "nowhere": {"affinity": NOWHERE},
    "taken-port": {"containers": PORT_80, **ON_ROOMY},
    "crowded": {"nodeSelector": {"kubernetes.io/hostname": "crowded"}},
}


@pytest.mark.skipif(asked_minor() is not None, reason="our words are those of the newest kube-scheduler")
def test_events_and_conditions_are_kube_schedulers(bench: Workbench, log: Path, tmp_path: Path) -> None:
    """Up to what preemption says, which comes after everything else in a text."""
    config = tmp_path / "config.yaml"
    config.write_text(
        "apiVersion: wholepod.io/v1alpha1\n"
        "kind: SchedulerConfiguration\n"
        "profiles: [{schedulerName: ours, preset: kube}]\n"
    )

    def create(scheduler: str) -> None:
        for case, spec in CASES.items():
            bench.pod(f"{case}-{scheduler}", scheduler_name=scheduler, **spec)
        bench.wait_event(f"fits-{scheduler}", "Scheduled")
        for case in [case for case in CASES if case != "fits"]:
            bench.wait_unschedulable(f"{case}-{scheduler}")
            bench.wait_event(f"{case}-{scheduler}", "FailedScheduling")

    bench.pod("early-ours", scheduler_name="ours")
    bench.pod("early-default-scheduler", scheduler_name="default-scheduler")
    bench.plane.start_scheduler()
    try:
        with Scheduler(ALONE, f"--config={config}", kubeconfig=bench.plane.kubeconfig, log=log):
            for scheduler in ("ours", "default-scheduler"):
                bench.wait_unschedulable(f"early-{scheduler}")
                bench.wait_event(f"early-{scheduler}", "FailedScheduling")
                bench.remove(f"early-{scheduler}")
            bench.node("tainted", taints=[TAINT])
            bench.node("small", memory="512Mi", cpu="1")
            bench.node("crowded", pods=1)
            bench.pod("crowds", nodeName="crowded")
            bench.node("roomy", memory="16Gi", cpu="16")
            bench.pod("holds-port-80", nodeName="roomy", containers=PORT_80)
            bench.node("cordoned")
            bench.change_node("cordoned", spec={"unschedulable": True})
            bench.barrier("ours")
            bench.barrier("default-scheduler")
            create("ours")
            create("default-scheduler")
            for case in ("early", *CASES):
                assert words(bench, case, "ours") == words(bench, case, "default-scheduler"), case
    finally:
        bench.plane.programs["kube-scheduler"].stop()


def words(bench: Workbench, case: str, scheduler: str) -> Json:
    """All that a scheduler said of a pod at first, with names and times of its own taken out."""
    event = min(bench.events_of(f"{case}-{scheduler}"), key=lambda event: str(event["eventTime"]))
    pod = bench.pods.ask(lambda pods: pods.get(f"{bench.namespace}/{case}-{scheduler}"))
    compared = ("type", "reason", "action", "note", "reportingController", "reportingInstance")
    said = {
        "event": {field: event[field] for field in compared},
        "fields of the event": sorted(event),
        "fields of the object that the event is about": sorted(event["regarding"]),
        "condition": {**condition(pod, "PodScheduled"), "lastTransitionTime": "then"},
    }
    text = json.dumps(said).replace(scheduler, "SCHEDULER")
    # Kubernetes' text about preemption is the last sentence.
    answer: Json = json.loads(re.sub(r' preemption: [^"]*', "", text))
    return answer


def test_a_hard_rule_that_is_not_supported_keeps_the_pod_waiting(
    bench: Workbench, scheduler: Scheduler
) -> None:
    bench.node("node", labels={"zone": "z"})
    bench.pod("strict", resourceClaims=[{"name": "gpu", "resourceClaimName": "gpu"}])
    note = bench.wait_event("strict", "FailedScheduling")["note"]
    assert note == (
        "0/1 nodes are available: Wholepod does not support resource claims yet. "
        "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )
    assert bench.wait_unschedulable("strict") == note
    bench.node("another")
    bench.barrier()
    assert bench.node_of("strict") == ""


def test_soft_rules_and_harmless_volumes_do_not_hinder(bench: Workbench, scheduler: Scheduler) -> None:
    bench.node("node")
    term = {"weight": 1, "podAffinityTerm": ZONE}
    soft = "preferredDuringSchedulingIgnoredDuringExecution"
    sources = {
        "emptyDir": {},
        "hostPath": {"path": "/data"},
        "configMap": {"name": "a"},
        "secret": {"secretName": "a"},
    }
    bench.pod(
        "lenient",
        affinity={"podAffinity": {soft: [term]}, "podAntiAffinity": {soft: [term]}},
        topologySpreadConstraints=[{**ZONE, "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"}],
        volumes=[{"name": kind.lower(), kind: source} for kind, source in sources.items()],
    )
    bench.wait_bound("lenient")


def test_preferences_between_pods_and_nodes_count(bench: Workbench, scheduler: Scheduler) -> None:
    """By memory alone all of these pods would go to the smallest node, and to the fuller of equals."""
    avoid = {"key": "avoid", "effect": "PreferNoSchedule"}
    bench.node("avoided", memory="2Gi", taints=[avoid])
    bench.node("ssd", memory="8Gi", labels={"disk": "ssd"})
    stocked = node_manifest("stocked", memory="8Gi")
    stocked["status"]["images"] = [{"names": ["example.com/big:v1"], "sizeBytes": 900 << 20}]
    bench.api.create(stocked)
    bench.barrier()
    # Between nodes that are equal otherwise, the image decides.
    bench.pod("big", containers=[{"name": "c", "image": "example.com/big:v1"}])
    assert bench.wait_bound("big") == ["stocked"]
    ssd = {"key": "disk", "operator": "In", "values": ["ssd"]}
    term = {"weight": 1, "preference": {"matchExpressions": [ssd]}}
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}}
    bench.pod("fond", affinity=affinity)
    bench.pod("shy")
    bench.pod("brave", tolerations=[{"key": "avoid", "operator": "Exists"}])
    fond, shy, brave = bench.wait_bound("fond", "shy", "brave")
    assert fond == "ssd"
    assert shy != "avoided"
    assert brave == "avoided"


# Endpoints.


def test_health(scheduler: Scheduler) -> None:
    for path in ("/livez", "/healthz", "/readyz"):
        assert scheduler.text(path) == "ok"
    shutdown, *watches, verdict = scheduler.text("/readyz?verbose").splitlines()
    assert (shutdown, verdict) == ("[+]shutdown ok", "readyz check passed")
    assert watches[:3] == ["[+]pods-synced ok", "[+]nodes-synced ok", "[+]namespaces-synced ok"]
    may_watch = {f"[+]{resource}-synced ok" for verb, resource, _ in granted() if verb == "watch"}
    assert {"[+]persistentvolumeclaims-synced ok"} <= set(watches) <= may_watch
    assert scheduler.text("/livez?verbose").splitlines()[-1] == "livez check passed"


def test_configz_shows_what_flags_have_set(scheduler: Scheduler) -> None:
    shown = json.loads(scheduler.text("/configz"))["wholepod.io"]
    assert shown["kind"] == "SchedulerConfiguration"
    assert shown["leaderElection"]["leaderElect"] is False
    assert (shown["clientConnection"]["qps"], shown["clientConnection"]["burst"]) == (500, 1000)
    assert [profile["schedulerName"] for profile in shown["profiles"]] == ["wholepod"]


def test_metrics_have_kube_schedulers_names(bench: Workbench, scheduler: Scheduler) -> None:
    bench.node("node")
    bench.pod("pod")
    bench.wait_event("pod", "Scheduled")
    bench.pod("big", "64Gi")
    bench.wait_unschedulable("big")
    for name, labels in (
        ("scheduler_schedule_attempts_total", {"result": "scheduled", "profile": "wholepod"}),
        ("scheduler_schedule_attempts_total", {"result": "unschedulable", "profile": "wholepod"}),
        ("scheduler_scheduling_attempt_duration_seconds_count", {"result": "scheduled"}),
        ("scheduler_scheduling_algorithm_duration_seconds_count", {}),
        ("scheduler_pod_scheduling_sli_duration_seconds_count", {"attempts": "1"}),
        ("scheduler_pod_scheduling_attempts_count", {}),
        ("scheduler_pending_pods", {"queue": "unschedulable"}),
        ("scheduler_queue_incoming_pods_total", {"queue": "active", "event": "PodAdd"}),
        ("scheduler_unschedulable_pods", {"plugin": "NodeResourcesFit", "profile": "wholepod"}),
        ("scheduler_cache_size", {"type": "nodes"}),
        ("rest_client_requests_total", {"code": "201", "method": "POST"}),
        ("process_cpu_seconds_total", {}),
    ):
        assert scheduler.metric(name, **labels) > 0, name


def test_the_log_level_changes_while_it_runs(bench: Workbench, scheduler: Scheduler) -> None:
    bench.node("node")
    bench.pod("quiet")
    bench.wait_bound("quiet")
    assert not scheduler.said("decided")
    assert scheduler.text("/debug/log-level") == "info\n"
    assert scheduler.request("/debug/log-level", method="PUT", body="debug") == (200, "debug\n")
    bench.pod("told")
    bench.wait_bound("told")
    assert [record["pod"] for record in scheduler.records("decided")] == [f"{bench.namespace}/told"]
    status, text = scheduler.request("/debug/log-level", method="PUT", body="loud")
    assert status == 400
    assert "'loud' is not one of debug, info, warning, error" in text
    assert scheduler.request("/debug/log-level", method="PUT", body="info") == (200, "info\n")


# The end.


def test_sigterm_finishes_what_is_under_way(bench: Workbench, log: Path) -> None:
    """A bind was carried out and its answer is on the way when the signal comes; others wait to be sent."""
    pods = [f"pod-{n}" for n in range(30)]
    bench.node("node", memory="64Gi")
    with (
        Proxy(bench.plane) as proxy,
        Scheduler(
            *(ALONE, "--scheduler-name=leaves", "--kube-api-qps=2", "--kube-api-burst=1"),
            kubeconfig=proxy.kubeconfig(bench.plane),
            log=log,
        ) as scheduler,
    ):
        for pod in pods:
            bench.pod(pod, scheduler_name="leaves")
        bench.pods.wait(lambda seen: count_bound(bench, seen) >= 1, "one is bound")
        proxy.hold_answers()
        before = bench.pods.ask(lambda seen: count_bound(bench, seen))
        bench.pods.wait(lambda seen: count_bound(bench, seen) > before, "one more is bound, unheard of")
        scheduler.signal(signal.SIGTERM)
        eventually(lambda: scheduler.said("stopping"), "the signal is heard")
        assert scheduler.records("stopping")[0]["binds_under_way"] >= 1
        proxy.release_answers()
        assert scheduler.wait() == 0
        (stopped,) = scheduler.records("stopped")
        assert (stopped["undecided_binds"], stopped["unsent_events"]) == (0, 0)
    bound = [pod for pod in pods if bench.node_of(pod)]
    assert 1 < len(bound) < len(pods)
    # It heard of each of its binds, for each has its event; no pod has one that is not bound.
    for pod in bound:
        bench.wait_event(pod, "Scheduled")
    assert all(not bench.events_of(pod) for pod in pods if pod not in bound)


def count_bound(bench: Workbench, pods: Mapping[str, Json]) -> int:
    return bound(pod for pod in pods.values() if pod["metadata"]["namespace"] == bench.namespace)
