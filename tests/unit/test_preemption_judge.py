"""The judge of `make bench-preemption` must see what is wrong."""

from __future__ import annotations

from typing import Any

from tests.bench.preemption_judge import Pod, Room, Wrong, judge

ROOM = Room(4000, 4096, 10)
PODS = [
    *(Pod(f"low-{i}", 1000, 1024, 0, "n") for i in range(4)),
    Pod("urgent", 2000, 1024, 100),
    Pod("later", 1000, 1024, 100),
]


def decided(pod: str, node: str | None = None, nominated: str | None = None) -> dict[str, Any]:
    return {"event": "decided", "pod": f"ns/{pod}", "node": node, "nominated": nominated}


def preempting(pod: str, *victims: str) -> dict[str, Any]:
    names = [f"ns/{victim}" for victim in victims]
    return {"event": "preempting", "pod": f"ns/{pod}", "node": "n", "victims": names}


def gone(pod: str) -> dict[str, Any]:
    return {"event": "pod is gone", "pod": f"ns/{pod}"}


def test_enough_and_not_more() -> None:
    assert judge([preempting("urgent", "low-0", "low-1")], PODS, ROOM) == (1, [])


def test_one_too_many() -> None:
    count, wrong = judge([preempting("urgent", "low-0", "low-1", "low-2")], PODS, ROOM)
    assert (count, wrong) == (1, [Wrong("urgent", f"low-{i}") for i in range(3)])


def test_too_few() -> None:
    assert judge([preempting("urgent", "low-0")], PODS, ROOM) == (1, [Wrong("urgent", "")])


def test_what_is_promised_counts() -> None:
    log = [preempting("urgent", "low-0", "low-1"), gone("low-0"), gone("low-1"), preempting("later", "low-2")]
    assert judge(log, PODS, ROOM) == (2, [])
    # Once the promise is taken back there is room without any victim.
    taken_back = [*log[:3], decided("urgent", nominated=""), log[3]]
    assert judge(taken_back, PODS, ROOM) == (2, [Wrong("later", "low-2")])


def test_a_placed_pod_is_not_counted_twice() -> None:
    log = [preempting("urgent", "low-0", "low-1"), gone("low-0"), gone("low-1"), decided("urgent", "n")]
    assert judge([*log, preempting("later", "low-2")], PODS, ROOM) == (2, [])
