"""`wholepod controller` when things go wrong. Each test has the controllers that it starts, and no other."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.cluster import ControlPlane
from tests.integration.controlling import (
    CREATE,
    LABEL,
    Stage,
    said,
)
from tests.integration.harness import Controller, eventually
from tests.integration.proxy import Proxy


def test_a_restart_in_the_middle(stage: Stage, kubeconfig: Path, log: Path) -> None:
    stage.group("g", 2, scheduleTimeoutSeconds=3600)
    with Controller(kubeconfig=kubeconfig, log=log) as controller:
        stage.member("a", "g")
        stage.member("b", "g")
        start = stage.wait_status("g", phase="Scheduling")["scheduleStartTime"]
        controller.kill()
        stage.bind("a", "node")
        stage.bind("b", "node")
        stage.job("train", 2, annotations={CREATE: "true"}, labels={LABEL: "train"})
        stage.remove("b")
        stage.member("c", "g")
        controller.start()
        status = stage.wait_status("g", phase="Scheduling", scheduled=1)
        assert status["scheduleStartTime"] == start
        stage.wait_status("train", phase="Scheduling")
        assert controller.terminate() == 0


def test_two_controllers_do_what_one_does(stage: Stage, kubeconfig: Path, tmp_path: Path) -> None:
    with (
        Controller(kubeconfig=kubeconfig, log=tmp_path / "one.log") as one,
        Controller(kubeconfig=kubeconfig, log=tmp_path / "other.log") as other,
    ):
        both = (one, other)
        for n in range(8):
            stage.group(f"g-{n}", 2, scheduleTimeoutSeconds=1)
            stage.job(f"job-{n}", 2, annotations={CREATE: "true"}, labels={LABEL: f"job-{n}"})
            stage.member(f"a-{n}", f"g-{n}")
            stage.member(f"b-{n}", f"g-{n}")
        for n in range(8):
            stage.wait_status(f"job-{n}", phase="Scheduling")
            stage.wait_group(f"g-{n}", lambda g: said(g, "Scheduled")[1] == "ScheduleTimeout", "is late")
            stage.wait_event_of("PodGroup", f"g-{n}", "ScheduleTimeout")
        eventually(
            lambda: sum(each.metric("wholepod_controller_queue_length") for each in both) == 0,
            "nothing is left to do",
        )
        created = sum(each.metric("wholepod_controller_pod_groups_created_total") for each in both)
        assert created == 8
        events = stage.events.ask(lambda seen: [e for e in seen.values() if e["reason"] == "ScheduleTimeout"])
        late = [each for each in events if each["regarding"]["namespace"] == stage.namespace]
        assert len(late) == 8
        # Neither undoes what the other does: at rest, nothing is written.
        writes = [each.metric("wholepod_controller_status_writes_total") for each in both]
        versions = stage.groups.ask(
            lambda seen: {k: g["metadata"]["resourceVersion"] for k, g in seen.items()}
        )
        stage.group("last", 1)
        stage.wait_status("last", phase="Pending")
        now = stage.groups.ask(lambda seen: {k: g["metadata"]["resourceVersion"] for k, g in seen.items()})
        assert {key: now[key] for key in versions} == versions
        eventually(
            lambda: (
                sum(each.metric("wholepod_controller_status_writes_total") for each in both) > sum(writes)
            ),
            "the last one was written",
        )
        for each in both:
            assert each.records("a defect of the controller") == []


def test_an_api_server_that_goes_away(kubeconfig: Path, stage: Stage, log: Path) -> None:
    with Controller(kubeconfig=kubeconfig, log=log) as controller:
        stage.group("g", 1)
        stage.wait_status("g", phase="Pending")
        stage.plane.kill_apiserver()
        eventually(lambda: controller.said("watch interrupted"), "it notices")
        assert controller.status("/livez") == 200
        stage.plane.start_apiserver()
        stage.member("a", "g")
        stage.wait_status("g", phase="Scheduling")
        stage.group("new", 1)
        stage.wait_status("new", phase="Pending")
        assert controller.terminate() == 0
        # One line now and then, not one for each attempt.
        warnings = [each for each in controller.records() if each["level"] in ("warning", "error")]
        assert len(warnings) < 20, warnings


def test_connections_that_break_all_the_time(plane: ControlPlane, stage: Stage, log: Path) -> None:
    with (
        Proxy(plane) as proxy,
        Controller(kubeconfig=proxy.kubeconfig(plane), log=log) as controller,
    ):
        for n in range(10):
            stage.group(f"g-{n}", 2)
            stage.job(f"job-{n}", 2, annotations={CREATE: "true"}, labels={LABEL: f"job-{n}"})
            if n == 3:
                # What is written now is carried out, and the answer lost.
                proxy.hold_answers()
            for pod in ("a", "b"):
                stage.member(f"{pod}-{n}", f"g-{n}")
                stage.bind(f"{pod}-{n}", "node")
            if n == 6:
                proxy.cut()
                proxy.release_answers()
            elif n > 6:
                proxy.cut()
        for n in range(10):
            stage.wait_status(f"g-{n}", phase="Scheduling", scheduled=2)
            stage.wait_status(f"job-{n}", phase="Scheduling", scheduled=0)
        assert controller.records("a defect of the controller") == []
        assert controller.terminate() == 0


def test_missing_rights_are_named(plane: ControlPlane, log: Path) -> None:
    controller = Controller(kubeconfig=plane.kubeconfig_for("stranger"), log=log)
    controller.launch()
    assert controller.wait() == 3
    text = log.read_text()
    assert "patch podgroups/status.scheduling.x-k8s.io" in text
    assert "deploy/base/rbac-controller.yaml" in text


def test_it_ends_in_good_order(kubeconfig: Path, log: Path) -> None:
    with Controller(kubeconfig=kubeconfig, log=log) as controller:
        controller.signal(signal.SIGINT)
        assert controller.wait() == 0
        assert controller.said("stopped")
