"""Who has to give way on a node that two schedulers have overfilled."""

from __future__ import annotations

from scheduler.core.engine import Engine
from scheduler.core.races import RECENT_S, VERDICT_AFTER_S
from tests.builders import Clock, PodBuilder, make_engine, make_node, make_pod

OURS = "uid-of-default/ours"


def pod(name: str, memory: str = "1Gi") -> PodBuilder:
    return make_pod().named(name).req(memory=memory)


def bound(pod: PodBuilder, second: int) -> PodBuilder:
    at = f"2026-01-01T00:00:{second:02}Z"
    condition = {"type": "PodScheduled", "status": "True", "lastTransitionTime": at}
    return pod.on("n").status(conditions=[condition])


def one_node(memory: str = "1Gi") -> tuple[Engine, Clock]:
    """Our pod has been bound to its only node."""
    clock = Clock()
    engine = make_engine(clock)
    engine.upsert_node(make_node("n").allocatable(memory=memory).obj())
    engine.upsert_pod(pod("ours").obj())
    assert (decision := engine.decide()) is not None
    assert decision.node == "n"
    return engine, clock


def theirs(second: int, memory: str = "1Gi") -> PodBuilder:
    return bound(pod("theirs", memory).scheduler("another"), second)


def losers(engine: Engine) -> list[tuple[str, bool]]:
    return [(loser.info.uid, loser.ours) for loser in engine.races.verdicts()]


def raced(ours: int, others: int) -> tuple[Engine, Clock]:
    """Both have been bound, in these seconds."""
    engine, clock = one_node()
    engine.upsert_pod(theirs(others).obj())
    engine.bind_confirmed(OURS)
    engine.upsert_pod(bound(pod("ours"), ours).obj())
    return engine, clock


def test_the_pod_that_was_bound_last_gives_way_after_a_while() -> None:
    engine, clock = raced(ours=7, others=5)
    assert losers(engine) == []
    clock.advance(VERDICT_AFTER_S)
    assert losers(engine) == [(OURS, True)]
    assert losers(engine) == []


def test_if_the_other_was_bound_last_it_is_not_ours_to_undo() -> None:
    engine, clock = raced(ours=5, others=7)
    clock.advance(VERDICT_AFTER_S)
    assert losers(engine) == [("uid-of-default/theirs", False)]


def test_the_same_second_is_decided_by_uid() -> None:
    engine, clock = raced(ours=5, others=5)
    clock.advance(VERDICT_AFTER_S)
    assert losers(engine) == [("uid-of-default/theirs", False)]


def test_what_a_kubelet_has_settled_is_settled() -> None:
    engine, clock = raced(ours=7, others=5)
    engine.upsert_pod(bound(pod("ours"), 7).status(phase="Failed").obj())
    clock.advance(VERDICT_AFTER_S)
    assert losers(engine) == []


def test_a_node_with_room_for_both_and_one_that_shrinks_are_nobodys_loss() -> None:
    engine, clock = one_node("2Gi")
    engine.upsert_pod(theirs(5).obj())
    engine.bind_confirmed(OURS)
    engine.upsert_pod(bound(pod("ours"), 7).obj())
    engine.upsert_node(make_node("n").allocatable(memory="1Gi").obj())
    clock.advance(VERDICT_AFTER_S)
    assert losers(engine) == []


def test_a_bind_that_takes_longer_is_looked_at_when_it_is_done() -> None:
    engine, clock = one_node()
    engine.upsert_pod(theirs(5).obj())
    clock.advance(VERDICT_AFTER_S)
    assert losers(engine) == []
    engine.upsert_pod(bound(pod("ours"), 7).obj())
    engine.bind_confirmed(OURS)  # the answer may come after the news
    clock.advance(VERDICT_AFTER_S)
    assert losers(engine) == [(OURS, True)]
    engine.remove_pod(OURS)
    clock.advance(VERDICT_AFTER_S)
    assert losers(engine) == []
    assert engine.races.crowded == []


def test_what_was_bound_long_ago_is_not_in_question() -> None:
    engine, clock = one_node()
    engine.bind_confirmed(OURS)
    engine.upsert_pod(bound(pod("ours"), 7).obj())
    clock.advance(RECENT_S)
    engine.upsert_pod(theirs(5).obj())
    other = pod("ours-too").selector({"no": "node"})
    engine.upsert_pod(other.obj())
    engine.bind_confirmed("uid-of-default/ours-too")  # old ones are forgotten
    clock.advance(VERDICT_AFTER_S)
    assert losers(engine) == []
    assert engine.races.crowded == []


def test_a_pod_that_is_too_large_does_not_push_out_those_after_it() -> None:
    engine, clock = one_node("2Gi")
    engine.upsert_pod(theirs(5, "5Gi").obj())
    engine.bind_confirmed(OURS)
    engine.upsert_pod(bound(pod("ours"), 7).obj())
    clock.advance(VERDICT_AFTER_S)
    assert losers(engine) == [("uid-of-default/theirs", False)]


GPU = "example.com/gpu"


def test_a_pod_that_takes_nothing_of_what_a_node_has_lost_pushes_nobody_out() -> None:
    """A device plugin that restarts has its node offer nothing for a while, and there is always a new pod."""
    engine, clock = one_node("2Gi")
    engine.upsert_node(make_node("n").allocatable(memory="2Gi", **{GPU: "1"}).obj())
    engine.remove_pod(OURS)
    engine.upsert_pod(pod("ours").req(**{GPU: "1"}).obj())
    assert (decision := engine.decide()) is not None
    assert decision.node == "n"
    engine.bind_confirmed(OURS)
    engine.upsert_pod(bound(pod("ours").req(**{GPU: "1"}), 5).obj())
    engine.upsert_node(make_node("n").allocatable(memory="2Gi", **{GPU: "0"}).obj())
    engine.upsert_pod(theirs(7).obj())
    clock.advance(VERDICT_AFTER_S)
    assert losers(engine) == []
    assert engine.races.crowded == []


def test_what_a_node_loses_after_a_race_is_nobodys_loss() -> None:
    engine, clock = one_node("2Gi")
    engine.bind_confirmed(OURS)
    engine.upsert_pod(bound(pod("ours"), 5).obj())
    engine.upsert_pod(theirs(7, "2Gi").obj())
    engine.upsert_node(make_node("n").allocatable(memory="512Mi").obj())
    clock.advance(VERDICT_AFTER_S)
    assert losers(engine) == [("uid-of-default/theirs", False)]


def test_resources_that_a_profile_does_not_filter_by_are_nobodys_loss() -> None:
    engine, clock = one_node()
    engine.races.counts = lambda name: name != "memory"
    engine.upsert_pod(theirs(5).obj())
    engine.bind_confirmed(OURS)
    engine.upsert_pod(bound(pod("ours"), 7).obj())
    clock.advance(VERDICT_AFTER_S)
    assert losers(engine) == []
    assert not engine.races.is_overfull("n")


def test_a_node_may_be_overfilled_by_the_number_of_its_pods() -> None:
    engine, clock = one_node()
    engine.upsert_node(make_node("n").allocatable(memory="8Gi", pods="1").obj())
    engine.upsert_pod(theirs(5).obj())
    engine.bind_confirmed(OURS)
    engine.upsert_pod(bound(pod("ours"), 7).obj())
    clock.advance(VERDICT_AFTER_S)
    assert losers(engine) == [(OURS, True)]
