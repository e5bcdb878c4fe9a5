"""The queue's rules: who is next, who sleeps for how long, and what the heaps may remember."""

import pytest

from scheduler.core.queue import Place, QueuedPod, SchedulingQueue
from tests.builders import Clock, PodBuilder, make_pod

KIND = ("wholepod", b"kind")
OTHER = ("wholepod", b"other kind")
REJECTED = frozenset({"NodeResourcesFit"})


class Queue(SchedulingQueue):
    """A queue in virtual time, with pods by name."""

    def __init__(self) -> None:
        self.clock = Clock()
        super().__init__(self.clock)

    def give(self, name: str, pod: PodBuilder | None = None, kind: tuple[str, bytes] = KIND) -> QueuedPod:
        return self.add((pod or make_pod()).named(name).uid(name).info(), kind)

    def pop_names(self) -> list[str]:
        names = []
        while (pod := self.pop()) is not None:
            names.append(pod.info.uid)
        return names

    def fail(self, name: str, rejected_by: frozenset[str] = REJECTED) -> QueuedPod:
        """Tries the next pod in vain."""
        pod = self.pop()
        assert pod is not None
        assert pod.info.uid == name
        self.set_unschedulable(pod, rejected_by)
        return pod

    def wake_kind(self, kind: tuple[str, bytes]) -> int:
        asleep = self.asleep(kind)
        return self.wake(asleep[0], "NodeAdd") if asleep is not None else 0

    def places(self) -> dict[str, str]:
        return {pod.info.uid: pod.place.value for pod in self}


def test_priority_first_then_arrival() -> None:
    queue = Queue()
    for name, priority in [("a", 0), ("b", 5), ("c", 5), ("d", -3), ("e", 0)]:
        queue.give(name, make_pod().priority(priority))
    assert queue.pop_names() == ["b", "c", "a", "e", "d"]


def test_a_pod_keeps_its_turn_while_it_waits() -> None:
    queue = Queue()
    queue.give("first")
    queue.fail("first")
    queue.give("second")
    queue.clock.advance(1)
    queue.wake_kind(KIND)
    assert queue.pop_names() == ["first", "second"]


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (6, 10), (2000, 10)]
)
def test_backoff_doubles_up_to_ten_seconds(attempt: int, seconds: float) -> None:
    queue = Queue()
    queue.give("a").attempts = attempt - 1
    pod = queue.pop()
    assert pod is not None
    queue.set_backoff(pod)
    assert queue.next_due() == queue.clock() + seconds
    queue.clock.advance(seconds - 0.001)
    assert queue.pop() is None
    queue.clock.advance(0.001)
    assert queue.pop() is pod


def test_woken_too_early_it_serves_its_backoff_first() -> None:
    queue = Queue()
    queue.give("a")
    queue.fail("a")
    queue.clock.advance(0.5)
    assert queue.wake_kind(KIND) == 1
    assert queue.places() == {"a": "backoff"}
    queue.clock.advance(0.5)
    assert queue.pop_names() == ["a"]


def test_woken_late_it_is_active_at_once() -> None:
    queue = Queue()
    queue.give("a")
    queue.fail("a")
    queue.clock.advance(1)
    queue.wake_kind(KIND)
    assert queue.places() == {"a": "active"}


def test_a_wake_is_for_one_kind() -> None:
    queue = Queue()
    for name, kind in [("a", KIND), ("b", OTHER), ("c", KIND)]:
        queue.give(name, kind=kind)
        queue.fail(name)
    assert queue.wake_kind(KIND) == 2
    assert queue.wake_kind(KIND) == 0
    assert queue.places() == {"a": "backoff", "b": "unschedulable", "c": "backoff"}


def test_sleepers_are_flushed_after_five_minutes_each_in_its_time() -> None:
    queue = Queue()
    queue.give("a")
    queue.fail("a")
    queue.clock.advance(100)
    queue.give("b")
    queue.fail("b")
    queue.clock.advance(199.9)
    assert queue.pop() is None
    queue.clock.advance(0.1)
    queue.fail("a")
    queue.clock.advance(99.9)
    assert queue.pop() is None
    queue.clock.advance(0.1)
    queue.fail("b")
    assert queue.next_due() == queue.clock() + 200


@pytest.mark.parametrize("idle_s", [0, 1, 299, 300, 1000])
def test_the_next_flush_is_never_announced_too_late(idle_s: float) -> None:
    queue = Queue()
    queue.clock.advance(idle_s)
    queue.give("a")
    queue.fail("a")
    falls_asleep = queue.clock()
    while queue.clock() < falls_asleep + 300:
        due = queue.next_due()
        assert due is not None
        assert queue.clock() < due <= falls_asleep + 300
        queue.clock.now = due
        if due < falls_asleep + 300:
            assert queue.pop() is None
    assert queue.pop_names() == ["a"]


def test_nothing_is_due_without_pods_that_wait() -> None:
    queue = Queue()
    assert queue.next_due() is None
    queue.give("a", make_pod().gated())
    assert queue.next_due() is None
    assert not queue.has_active()


def test_gated_pods_wait_until_the_last_gate_is_gone() -> None:
    queue = Queue()
    queue.give("a", make_pod().gated("one", "two"))
    assert queue.pop() is None
    queue.update(make_pod().uid("a").gated("two").info(), KIND)
    assert queue.places() == {"a": "gated"}
    queue.clock.advance(60)
    queue.update(make_pod().uid("a").info(), KIND)
    pod = queue.pop()
    assert pod is not None
    assert pod.first_seen == queue.clock(), "the time behind a gate is not time that scheduling took"


@pytest.mark.parametrize(
    ("asleep_s", "kind", "place"),
    [
        (5, KIND, "unschedulable"),
        (5, OTHER, "active"),
        (0, OTHER, "backoff"),
    ],
)
def test_an_update_of_a_sleeper(asleep_s: float, kind: tuple[str, bytes], place: str) -> None:
    """Tried again when decisions read what has changed, yet no sooner than its backoff allows:
    or its author could keep the scheduler busy with updates."""
    queue = Queue()
    queue.give("a")
    queue.fail("a")
    queue.clock.advance(asleep_s)
    queue.update(make_pod().named("renewed").uid("a").info(), kind)
    assert queue.places() == {"a": place}
    assert next(iter(queue)).info.name == "default/renewed"
    queue.wake_kind(kind)
    queue.clock.advance(1)
    assert queue.pop_names() == ["a"]


def test_an_update_moves_an_active_pod_to_its_new_priority() -> None:
    queue = Queue()
    queue.give("a")
    queue.give("b")
    queue.update(make_pod().uid("b").priority(1).info(), KIND)
    assert queue.pop_names() == ["b", "a"]


def test_an_update_in_flight_changes_the_object_alone() -> None:
    queue = Queue()
    queue.give("a")
    pod = queue.pop()
    assert pod is not None
    queue.update(make_pod().named("renewed").uid("a").priority(7).info(), OTHER)
    assert (pod.place, pod.info.name, pod.kind) == (Place.IN_FLIGHT, "default/renewed", OTHER)
    queue.set_unschedulable(pod, REJECTED)
    assert queue.unschedulable_kinds() == [OTHER]


@pytest.mark.parametrize("place", ["active", "backoff", "unschedulable", "gated", "in-flight"])
def test_a_removed_pod_is_gone_from_wherever_it_was(place: str) -> None:
    queue = Queue()
    queue.give("a", make_pod().gated() if place == "gated" else None)
    if place not in ("active", "gated"):
        pod = queue.pop()
        assert pod is not None
        if place == "backoff":
            queue.set_backoff(pod)
        if place == "unschedulable":
            queue.set_unschedulable(pod, REJECTED)
    assert queue.places() == {"a": place}
    queue.remove("a")
    assert "a" not in queue
    assert queue.next_due() is None
    assert not queue.has_active()
    queue.clock.advance(1000)
    assert queue.pop() is None
    assert queue.remove("a") is None


def test_a_pod_that_comes_again_starts_anew() -> None:
    queue = Queue()
    queue.give("a")
    queue.fail("a")
    queue.remove("a")
    queue.give("a")
    pod = queue.pop()
    assert pod is not None
    assert pod.attempts == 1
    assert queue.pop() is None, "the entry of its former life must not be found"


def test_who_rejected_a_kind_adds_up_until_it_is_woken() -> None:
    queue = Queue()
    for name, rejected_by in [("a", {"NodePorts"}), ("b", {"NodeAffinity"})]:
        queue.give(name)
        queue.fail(name, frozenset(rejected_by))
    queue.note_rejections(KIND, {"TaintToleration"})
    asleep = queue.asleep(KIND)
    assert asleep is not None
    pods, plugins = asleep
    assert [pod.info.uid for pod in pods] == ["a", "b"]
    assert plugins == {"NodePorts", "NodeAffinity", "TaintToleration"}
    queue.clock.advance(1)
    queue.wake_kind(KIND)
    queue.fail("a", frozenset({"NodeAffinity"}))
    again = queue.asleep(KIND)
    assert again is not None
    assert again[1] == {"NodeAffinity"}
    assert queue.asleep(OTHER) is None


def test_pods_that_come_and_go_untried_leave_nothing_behind() -> None:
    """A standby never pops, and pods pass it by for weeks."""
    queue = Queue()
    queue.give("stays")
    for i in range(5000):
        queue.give(f"passes {i}")
        queue.remove(f"passes {i}")
    assert len(queue._active) < 2000
    assert queue.pop_names() == ["stays"]


def test_depths_and_moves_are_counted() -> None:
    queue = Queue()
    queue.give("a")
    queue.give("b", make_pod().gated())
    queue.fail("a")
    assert {place.value: n for place, n in queue.depths().items() if n} == {"unschedulable": 1, "gated": 1}
    assert dict(queue.incoming) == {
        ("active", "PodAdd"): 1,
        ("gated", "PodAdd"): 1,
        ("unschedulable", "ScheduleAttemptFailure"): 1,
    }
