"""How a gang that was complete is planned when it has lost members."""

from __future__ import annotations

import pytest

from scheduler.core.engine import Engine
from scheduler.core.gangs.commit import GANG_GIVEN_UP, SINGLY, TXN_ANNOTATION
from scheduler.core.gangs.gang import GangError
from scheduler.core.gangs.ref import GangRef, Source
from tests.builders import PodBuilder, make_node
from tests.unit.core.gangs.words import cluster, decide_all, member, placed

REF = GangRef(Source.ANNOTATIONS, "default", "g")
STRATEGIES = pytest.mark.parametrize("strategy", ["atomic", "hoarding", "optimistic"])


def bound(name: str, node: str = "n0", /, *, txn: str = "t", **options: str) -> PodBuilder:
    pod = member(name, **{"min-count": "3", **options}).on(node)
    marks = {f"wholepod.io/{key}": value for key, value in {"gang": "g", "min-count": "3", **options}.items()}
    return pod.annotations(marks | {TXN_ANNOTATION: txn})


def waiting(name: str, /, **options: str) -> PodBuilder:
    return member(name, **{"min-count": "3", **options})


def nodes(engine: Engine, pod: PodBuilder) -> dict[str, str | None]:
    engine.upsert_pod(pod.obj())
    decisions = decide_all(engine)
    assert all(decision.commit is None for decision in decisions)
    return placed(decisions)


@STRATEGIES
def test_a_replacement_is_placed_as_a_single_without_waiting_for_others(strategy: str) -> None:
    engine = cluster("8Gi")
    engine.upsert_pod(bound("a", strategy=strategy).obj())
    assert nodes(engine, waiting("new", strategy=strategy)) == {"new": "n0"}


@STRATEGIES
def test_a_replacement_goes_to_the_domain_of_the_others(strategy: str) -> None:
    engine = cluster("1280Mi", "1280Mi", "4Gi")
    options = {"strategy": strategy, "topology-key": "kubernetes.io/hostname"}
    engine.upsert_pod(bound("a", "n2", **options).obj())
    assert nodes(engine, waiting("new", **options)) == {"new": "n2"}
    assert nodes(engine, waiting("newer", **options)) == {"newer": "n2"}
    assert nodes(engine, waiting("newest", **options)) == {"newest": "n2"}
    assert nodes(engine, waiting("too-many", **options)) == {}


def test_kept_means_that_new_members_wait_until_they_make_it_complete() -> None:
    engine = cluster("8Gi")
    engine.upsert_pod(bound("a", **{"on-member-loss": "keep"}).obj())
    assert nodes(engine, waiting("b", **{"on-member-loss": "keep"})) == {}
    engine.upsert_pod(waiting("c", **{"on-member-loss": "keep"}).obj())
    decisions = decide_all(engine)
    assert placed(decisions) == {"b": "n0", "c": "n0"}
    commit = decisions[0].commit
    assert commit is not None
    assert commit.placed_before == 1


def test_as_long_as_it_is_being_bound_it_is_not_complete() -> None:
    engine = cluster("8Gi")
    engine.gangs.book.is_committing = lambda ref: ref == REF
    engine.upsert_pod(bound("a").obj())
    assert nodes(engine, waiting("new")) == {}
    engine.gangs.book.is_committing = lambda ref: False
    engine.gangs.group_changed(REF)
    assert placed(decide_all(engine)) == {"new": "n0"}


def test_as_long_as_it_is_not_settled_nobody_is_placed() -> None:
    engine = cluster("8Gi")
    engine.gangs.book.is_settling = lambda ref: ref == REF
    engine.upsert_pod(bound("a").obj())
    assert nodes(engine, waiting("new")) == {}
    engine.gangs.book.is_settling = lambda ref: False
    engine.gangs.group_changed(REF)
    assert placed(decide_all(engine)) == {"new": "n0"}


def test_members_bound_by_hand_don_t_show_that_it_was_complete() -> None:
    engine = cluster("8Gi")
    engine.upsert_pod(waiting("by-hand").on("n0").obj())
    assert nodes(engine, waiting("new")) == {}


def test_a_member_that_joined_later_shows_it() -> None:
    engine = cluster("8Gi")
    engine.upsert_pod(bound("a", txn=SINGLY).obj())
    assert nodes(engine, waiting("new")) == {"new": "n0"}


def test_members_that_stayed_when_it_was_given_up_don_t_show_it() -> None:
    engine = cluster("8Gi")
    conditions = [{"type": GANG_GIVEN_UP, "status": "True"}]
    engine.upsert_pod(bound("kept").status(conditions=conditions).obj())
    assert nodes(engine, waiting("new")) == {}
    engine.upsert_pod(bound("also-kept").obj())
    gang = engine.gangs.book.named(REF)
    assert gang is not None
    gang.keep("uid-of-default/also-kept")  # and the watch is behind
    engine.gangs.group_changed(REF)
    decisions = decide_all(engine)
    assert placed(decisions) == {"new": "n0"}
    commit = decisions[0].commit
    assert commit is not None
    assert commit.placed_before == 2


@pytest.mark.parametrize("seen", [True, False])
def test_members_that_leave_don_t_count(seen: bool) -> None:
    """A gang of which all are being deleted starts anew as a whole, and anywhere."""
    engine = cluster("8Gi")
    options = {"topology-key": "kubernetes.io/hostname"}
    for name in "ab":
        engine.upsert_pod(bound(name, **options).obj())
    gang = engine.gangs.book.named(REF)
    assert gang is not None
    for name in "ab":
        if seen:
            engine.upsert_pod(bound(name, **options).terminating().obj())
        else:
            gang.leave(f"uid-of-default/{name}")
    for name in ("c", "d"):
        assert nodes(engine, waiting(name, **options)) == {}
    engine.remove_node("n0")
    engine.upsert_node(
        make_node("far").labels({"kubernetes.io/hostname": "far"}).allocatable(memory="8Gi").obj()
    )
    engine.upsert_pod(waiting("e", **options).obj())
    decisions = decide_all(engine)
    assert placed(decisions) == dict.fromkeys(("c", "d", "e"), "far")
    commit = decisions[0].commit
    assert commit is not None
    assert commit.placed_before == 0


@pytest.mark.parametrize(
    ("key", "text", "why"),
    [
        ("on-member-loss", "retry", "must be one of replace, restart, keep, got 'retry'"),
        ("delete-uncontrolled", "yes", "must be true or false, got 'yes'"),
    ],
)
def test_bad_options_are_named(key: str, text: str, why: str) -> None:
    engine = cluster("8Gi")
    engine.upsert_pod(member("a", **{key: text}).obj())
    gang = engine.gangs.book.named(REF)
    assert gang is not None
    with pytest.raises(GangError, match=why):
        engine.gangs.book.options(gang)
