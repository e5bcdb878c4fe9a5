"""A preemption on its way from the engine's decision to its end."""

from __future__ import annotations

import pytest

from scheduler.core.engine import Decision, Engine, Verdict
from scheduler.core.pod_info import PodInfo
from scheduler.core.preemption import Preemption
from scheduler.core.queue import SchedulingQueue
from scheduler.kube.binding import BindOutcome, Bound, BoundElsewhere, Gone, Refused
from scheduler.kube.deletion import Deleted
from scheduler.kube.payloads import PodReference
from scheduler.kube.reports import PodReports
from scheduler.observe.metrics import Metrics
from scheduler.preempting import Preempting
from tests.builders import Clock, PodBuilder, make_node, make_pod, make_profile
from tests.unit.recorder import Recorder

MESSAGE = "wholepod: preempting to accommodate a higher priority pod"


class Listening(Engine):
    """An engine that keeps what it was told of preemptions."""

    def __init__(self) -> None:
        clock = Clock()
        super().__init__([make_profile()], clock=clock, queue=SchedulingQueue(clock))
        self.ends: list[tuple[str, str]] = []

    def preemption_done(self, uid: str) -> None:
        self.ends.append((name_of(uid), "done"))
        super().preemption_done(uid)

    def preemption_failed(self, uid: str) -> None:
        self.ends.append((name_of(uid), "failed"))
        super().preemption_failed(uid)


class Scene:
    """A node with the victims v0, v1 and v2; preemptors are p and q."""

    def __init__(self) -> None:
        self.engine, self.metrics, self.writer = Listening(), Metrics(), Recorder()
        self.binding: set[str] = set()
        self.recalled: list[str] = []
        self.preempting = Preempting(
            self.engine, self.metrics, is_binding=self.binding.__contains__, recall_bind=self._recall
        )
        reports = PodReports(self.writer.as_writer, clock=Clock())
        self.preempting.connect(self.writer.as_writer, reports)
        self.engine.upsert_node(make_node("n").obj())
        for i in range(3):
            self.engine.upsert_pod(make_pod(f"v{i}").on("n").obj())

    def _recall(self, uid: str) -> bool:
        if uid not in self.binding or uid not in self.writer.unsent:
            return False
        self.recalled.append(name_of(uid))
        self.binding.remove(uid)
        return True

    def preempt(self, preemptor: str, *victims: str, displaced: tuple[PodInfo, ...] = ()) -> None:
        infos = tuple(self.info(name) for name in victims)
        preemption = Preemption("n", infos, 0, displaced)
        pod = make_pod(preemptor).priority(100).info()
        decision = Decision(
            pod, Verdict.UNSCHEDULABLE, None, "no", 1, 0.0, preemption=preemption, nominated_node="n"
        )
        self.preempting.start(decision, preemption)

    def info(self, name: str) -> PodInfo:
        placed = self.engine.state.pods.get(uid_of(name))
        return placed.info if placed is not None else make_pod(name).on("n").info()

    def deleted(self, name: str, outcome: Deleted | Gone | Refused | None = None) -> None:
        self.preempting.on_deleted(uid_of(name), outcome or Deleted())

    @property
    def deletions(self) -> list[str]:
        return [request.name for request in self.writer.deletions]

    @property
    def told(self) -> list[str]:
        """Pods whose owners were told of their preemption."""
        return [event.name for event in self.writer.events if event.reason == "Preempted"]

    def count(self, outcome: str) -> float | None:
        return self.metrics.registry.get_sample_value("wholepod_victims_total", {"outcome": outcome})

    @property
    def idle(self) -> bool:
        return not self.preempting._preemptions and not self.preempting._victims


@pytest.fixture
def scene() -> Scene:
    return Scene()


def uid_of(name: str) -> str:
    return f"uid-of-default/{name}"


def name_of(uid: str) -> str:
    return uid.removeprefix("uid-of-default/")


def test_victims_go_and_the_engine_hears_of_it(scene: Scene) -> None:
    scene.preempt("p", "v0", "v1")
    [patch] = scene.writer.patches
    assert (patch.name, patch.nominated_node) == ("p", "n")
    assert patch.condition is not None
    assert patch.condition.message == "no"
    assert scene.deletions == ["v0", "v1"]
    why = scene.writer.deletions[0].why
    assert why is not None
    assert why.condition is not None
    assert (why.uid, why.nominated_node) == (uid_of("v0"), None)
    condition = why.condition
    assert (condition.type, condition.status) == ("DisruptionTarget", "True")
    assert (condition.reason, condition.message) == ("PreemptionByScheduler", MESSAGE)
    scene.deleted("v1")
    assert scene.engine.ends == []
    scene.deleted("v0")
    assert scene.engine.ends == [("p", "done")]
    assert scene.idle
    assert scene.count("Deleted") == 2


def test_the_event_is_kube_schedulers(scene: Scene) -> None:
    scene.preempt("p", "v0")
    scene.deleted("v0")
    event = next(event for event in scene.writer.events if event.reason == "Preempted")
    assert (event.name, event.type, event.action) == ("v0", "Normal", "Preempting")
    assert event.note == f"Preempted by pod {uid_of('p')} on node n"
    assert event.related == PodReference("default", "p", uid_of("p"))
    assert event.scheduler_name == "wholepod"


def test_no_victim_is_touched_before_the_nomination_is_written(scene: Scene) -> None:
    scene.writer.held = []
    scene.preempt("p", "v0")
    assert scene.deletions == []
    [then] = scene.writer.held
    then()
    assert scene.deletions == ["v0"]


@pytest.mark.parametrize("terminating", [True, False])
def test_victims_that_go_already_need_nothing(scene: Scene, terminating: bool) -> None:
    scene.writer.held = []
    scene.preempt("p", "v0", "v1")
    if terminating:
        scene.engine.upsert_pod(make_pod("v0").on("n").terminating().obj())
    else:
        scene.engine.remove_pod(uid_of("v0"))
    scene.writer.held[0]()
    assert scene.deletions == ["v1"]
    scene.deleted("v1")
    assert scene.engine.ends == [("p", "done")]


def test_nothing_to_do_at_all(scene: Scene) -> None:
    scene.engine.remove_pod(uid_of("v0"))
    scene.preempt("p", "v0")
    assert (scene.deletions, scene.engine.ends, scene.idle) == ([], [("p", "done")], True)


def test_what_the_victim_says_already_is_not_written_again(scene: Scene) -> None:
    said = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": MESSAGE,
    }
    scene.engine.upsert_pod(make_pod("v0").on("n").status(conditions=[said]).obj())
    scene.engine.upsert_pod(make_pod("v1").on("n").status(conditions=[said | {"message": "old"}]).obj())
    scene.preempt("p", "v0", "v1")
    first, second = scene.writer.deletions
    assert first.why is None
    assert second.why is not None
    assert second.why.condition is not None
    assert not second.why.condition.transitioned


def test_a_victim_that_is_gone_by_itself(scene: Scene) -> None:
    scene.preempt("p", "v0")
    scene.deleted("v0", Gone())
    assert (scene.engine.ends, scene.told) == ([("p", "done")], [])
    assert scene.count("Gone") == 1


def test_one_victim_stays_the_others_are_spared(scene: Scene) -> None:
    scene.preempt("p", "v0", "v1", "v2")
    scene.writer.unsent = {uid_of("v2")}
    scene.deleted("v0", Refused("no"))
    assert scene.writer.cancelled == [uid_of("v2")]
    assert scene.engine.ends == []
    scene.deleted("v1")
    assert (scene.engine.ends, scene.idle) == ([("p", "failed")], True)
    assert (scene.count("Refused"), scene.count("Deleted")) == (1, 1)
    assert scene.told == ["v1"]


def test_two_preemptors_want_the_same_victim(scene: Scene) -> None:
    scene.preempt("p", "v0")
    scene.preempt("q", "v0", "v1")
    assert scene.deletions == ["v0", "v1"]
    scene.deleted("v0")
    assert scene.engine.ends == [("p", "done")]
    scene.deleted("v1")
    assert scene.engine.ends == [("p", "done"), ("q", "done")]
    assert scene.told == ["v0", "v1"]


def test_what_another_wants_is_not_spared(scene: Scene) -> None:
    scene.preempt("p", "v0", "v1")
    scene.preempt("q", "v1")
    scene.writer.unsent = {uid_of("v1")}
    scene.deleted("v0", Refused("no"))
    assert scene.engine.ends == [("p", "failed")]
    assert scene.writer.cancelled == []
    scene.deleted("v1")
    assert scene.engine.ends == [("p", "failed"), ("q", "done")]


def test_the_preemptor_goes(scene: Scene) -> None:
    scene.preempt("p", "v0", "v1")
    scene.writer.unsent = {uid_of("v1")}
    scene.preempting.pod_gone(uid_of("p"))
    assert scene.writer.cancelled == [uid_of("v1")]
    scene.deleted("v0")  # this one could not be called back
    assert scene.told == ["v0"]
    assert scene.idle


def test_the_preemptor_goes_before_anything_has_begun(scene: Scene) -> None:
    scene.writer.held = []
    scene.preempt("p", "v0")
    scene.preempting.preemptor_gone(uid_of("p"))
    scene.writer.held[0]()
    assert (scene.deletions, scene.idle) == ([], True)


def test_the_watch_is_faster_than_the_answer(scene: Scene) -> None:
    scene.preempt("p", "v0", "v1")
    scene.writer.unsent = {uid_of("v1")}
    for victim in ("v0", "v1"):
        scene.engine.remove_pod(uid_of(victim))
        scene.preempting.pod_gone(uid_of(victim))
    assert (scene.engine.ends, scene.count("Gone")) == ([], 1)
    scene.deleted("v0")
    assert (scene.engine.ends, scene.told) == ([("p", "done")], ["v0"])


def test_a_gap_in_the_watch(scene: Scene) -> None:
    scene.preempt("p", "v0", "v1")
    scene.writer.unsent = {uid_of("v0"), uid_of("v1")}
    scene.preempting.forget_all_but(lambda uid: uid == uid_of("v1"))
    assert scene.idle
    assert set(scene.writer.cancelled) == {uid_of("v0"), uid_of("v1")}


def test_a_victim_that_somebody_else_bound_is_not_spared_by_taking_our_bind_back(scene: Scene) -> None:
    scene.binding.add(uid_of("v0"))
    scene.writer.unsent = {uid_of("v0")}
    scene.preempt("p", "v0")  # the watch shows v0 on the node
    assert (scene.recalled, scene.engine.ends) == ([], [])
    scene.preempting.bind_ended(uid_of("v0"), Bound("n"))
    assert scene.deletions == ["v0"]


def test_an_unsent_bind_is_taken_back_and_the_victim_lives(scene: Scene) -> None:
    scene.engine.remove_pod(uid_of("v0"))
    scene.engine.state.assume(make_pod("v0").info(), "n")
    scene.binding.add(uid_of("v0"))
    scene.writer.unsent = {uid_of("v0")}
    scene.preempt("p", "v0")
    assert (scene.recalled, scene.deletions) == (["v0"], [])
    assert scene.engine.ends == [("p", "done")]
    [note] = [event.note for event in scene.writer.events if event.reason == "Preempted"]
    assert note == f"Preempted by pod {uid_of('p')} on node n (in kube-scheduler memory)."
    assert scene.count("Unbound") == 1


@pytest.mark.parametrize(
    ("outcome", "deletions"),
    [(Bound("n"), ["v0"]), (BoundElsewhere("m"), []), (Gone(), []), (Refused("no"), [])],
)
def test_a_bind_under_way_ends_first(scene: Scene, outcome: BindOutcome, deletions: list[str]) -> None:
    scene.binding.add(uid_of("v0"))
    scene.preempt("p", "v0")
    assert scene.deletions == []
    scene.preempting.bind_ended(uid_of("v0"), outcome)
    assert scene.deletions == deletions
    if deletions:
        scene.deleted("v0")
    assert (scene.engine.ends, scene.idle) == ([("p", "done")], True)


def test_a_victim_goes_while_its_bind_is_under_way(scene: Scene) -> None:
    scene.binding.add(uid_of("v0"))
    scene.preempt("p", "v0")
    scene.preempting.pod_gone(uid_of("v0"))
    assert (scene.engine.ends, scene.idle) == ([("p", "done")], True)


def test_displaced_pods_lose_their_nomination(scene: Scene) -> None:
    def waiting(name: str) -> PodBuilder:
        return make_pod(name).status(nominatedNodeName="n")

    scene.preempt("p", "v0", displaced=(waiting("low").info(),))
    [displaced] = [patch for patch in scene.writer.patches if patch.name == "low"]
    assert (displaced.condition, displaced.nominated_node) == (None, "")
