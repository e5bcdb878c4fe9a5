"""Each step of a commit: what happened goes in, and exactly this is to be done."""

from typing import Any

import msgspec
import pytest

from scheduler.kube.binding import Bound, BoundElsewhere, Gone, Refused
from scheduler.kube.gangs.actions import (
    Action,
    Announce,
    Bind,
    Cancel,
    Commit,
    Condemn,
    Delete,
    Ended,
    Keep,
    Member,
    Record,
    Remove,
    Settled,
    Short,
    Touch,
    Verify,
)
from scheduler.kube.gangs.transaction import GIVEN_UP, Phase, Transaction


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def member(name: str, *, controlled: bool = True, version: str = "1") -> Member:
    return Member("ns", name, f"uid-{name}", version, "n1", controlled)


A, B, C, D = (member(name) for name in "abcd")
ORPHAN = member("o", controlled=False)


def transaction(*members: Member, clock: Clock | None = None, **terms: Any) -> Transaction:
    fields: dict[str, Any] = {"txn": "t", "gang": "g", "min_count": 3, "deadline_s": 60.0, "members": members}
    commit = Commit(**(fields | terms))
    return Transaction(commit, epoch=4, started=17, clock=clock or Clock())


def binding(*members: Member, clock: Clock | None = None, **terms: Any) -> Transaction:
    """One whose intent is durable."""
    one = transaction(*members, clock=clock, **terms)
    one.begin()
    one.recorded()
    return one


def compensating(one: Transaction) -> Action:
    return Condemn(msgspec.structs.replace(one.entry, state="compensating"))


def test_all_goes_well() -> None:
    one = transaction(A, B, C, D)
    assert one.begin() == [Record(one.entry)]
    assert (one.entry.epoch, one.entry.started, one.entry.min_count) == (4, 17, 3)
    assert one.recorded() == [Bind(A), Bind(B), Bind(C), Bind(D)]
    assert one.settled(A.uid, Bound("n1")) == [Settled(A, Bound("n1"))]
    assert one.settled(B.uid, Bound("n1")) == [Settled(B, Bound("n1"))]
    assert one.settled(C.uid, Bound("n1")) == [Settled(C, Bound("n1")), Announce()]
    assert one.announced() == [Remove()]
    assert one.removed() == []  # one bind is under way still
    assert one.settled(D.uid, Bound("n1")) == [Settled(D, Bound("n1")), Ended(True)]


def test_surplus_members_may_fail() -> None:
    one = binding(A, B, C, D)
    for bound in (A, B, C):
        one.settled(bound.uid, Bound("n1"))
    assert one.settled(D.uid, Gone()) == [Settled(D, Gone())]
    one.announced()
    assert one.removed() == [Ended(True)]
    assert one.compensate("too late") == []


def test_members_that_were_bound_before_count() -> None:
    one = binding(A, already_bound=(B, C))
    assert one.settled(A.uid, Bound("n1"))[-1] == Announce()


def test_a_member_that_somebody_else_bound_counts() -> None:
    one = binding(A, B, C)
    one.settled(A.uid, BoundElsewhere("n2"))
    one.settled(B.uid, Bound("n1"))
    assert one.settled(C.uid, Bound("n1"))[-1] == Announce()


def test_nothing_is_bound_without_an_intent() -> None:
    one = transaction(A, B, C)
    one.begin()
    assert one.not_recorded("no journal") == [Ended(False, "no journal")]


def test_given_up_before_the_intent_was_durable() -> None:
    one = transaction(A, B, C)
    one.begin()
    assert one.compensate("changed my mind") == []
    assert one.recorded() == [Remove()]
    assert one.removed() == [Ended(False, "changed my mind")]


def test_short_is_said_once_for_each_missing_member() -> None:
    refused = Refused("no")
    one = binding(A, B, C, D)
    assert one.settled(A.uid, refused) == [Settled(A, refused)]  # three of four are enough
    assert one.settled(B.uid, refused) == [Settled(B, refused), Short(1)]
    assert one.settled(C.uid, Bound("n1")) == [Settled(C, Bound("n1"))]
    assert one.settled(D.uid, Gone()) == [Settled(D, Gone()), Short(2)]


def test_a_plan_that_was_too_small_is_short_from_the_start() -> None:
    one = transaction(A, B)
    one.begin()
    assert one.recorded() == [Bind(A), Bind(B), Short(1)]


def test_members_that_take_the_place_of_others_are_verified_first() -> None:
    one = binding(A, B, C)
    one.settled(A.uid, Gone())
    assert one.extend([D]) == [Verify()]
    late = member("late")
    assert one.extend([late]) == []  # read after the verification began: it needs another
    assert one.verified() == [Bind(D), Verify()]
    assert one.verified() == [Bind(late)]
    for bound in (B, C):
        one.settled(bound.uid, Bound("n1"))
    assert one.settled(D.uid, Bound("n1"))[-1] == Announce()


def test_who_is_known_is_not_bound_twice() -> None:
    one = binding(A, B, C)
    one.settled(A.uid, Bound("n1"))
    assert one.extend([A, B]) == []


def test_members_that_come_before_the_intent_is_durable_are_verified() -> None:
    one = transaction(A, B)
    one.begin()
    assert one.extend([C]) == []
    assert one.recorded() == [Bind(A), Bind(B), Verify()]


def test_a_changed_member_is_bound_as_it_is_now_once_that_is_verified() -> None:
    one = binding(A, B, C)
    assert one.settled(A.uid, Refused("conflict", "2")) == [Verify()]
    assert one.verified() == [Bind(member("a", version="2"))]
    assert one.settled(A.uid, Bound("n1")) == [Settled(member("a", version="2"), Bound("n1"))]


def test_a_member_that_never_stops_changing_is_refused_in_the_end() -> None:
    one = binding(A, B, C)
    for version in range(2, 22):
        assert one.settled(A.uid, Refused("conflict", str(version))) == [Verify()]
        one.verified()
    assert isinstance(one.settled(A.uid, Refused("conflict", "99"))[-1], Short)


def test_a_bound_member_that_is_lost_meanwhile_is_missing() -> None:
    one = binding(A, B, C)
    one.settled(A.uid, Bound("n1"))
    assert one.lost(A.uid) == [Short(1)]
    assert one.lost("stranger") == []


def test_a_member_in_doubt_completes_nothing() -> None:
    one = binding(A, B, min_count=2)
    one.settled(A.uid, Bound("n1"))
    one.doubt(A.uid)
    assert one.settled(B.uid, Bound("n1")) == [Settled(B, Bound("n1"))]
    assert one.lost(A.uid) == [Short(1)]


def test_a_member_that_was_gone_before_its_bind_was_answered_is_in_doubt() -> None:
    one = binding(A, B, min_count=2)
    one.settled(A.uid, Bound("n1"), in_doubt=True)
    assert Announce() not in one.settled(B.uid, Bound("n1"))
    assert one.bound == 2


def test_the_last_answer_ends_a_doubt() -> None:
    one = binding(A, B, min_count=2)
    one.settled(A.uid, Bound("n1"))
    one.doubt(A.uid)
    one.doubt(A.uid)
    one.settled(B.uid, Bound("n1"))
    assert one.still_bound(A.uid) == []
    assert one.still_bound(A.uid) == [Announce()]


def test_a_member_that_has_finished_is_in_no_doubt() -> None:
    one = binding(A, B, min_count=2)
    one.settled(A.uid, Bound("n1"))
    one.doubt(A.uid)
    one.settled(B.uid, Bound("n1"))
    assert one.finished(A.uid) == [Announce()]


def test_a_member_that_was_bound_before_may_be_lost_as_well() -> None:
    one = transaction(A, B, already_bound=(C,))
    one.begin()
    assert one.counted == [C.uid]
    one.recorded()
    one.settled(A.uid, Bound("n1"))
    assert one.lost(C.uid) == [Short(1)]
    assert one.losable(C.uid) is None


def test_a_member_that_has_finished_counts_and_is_not_deleted() -> None:
    one = binding(A, B, C)
    one.settled(A.uid, Bound("n1"))
    one.settled(B.uid, Bound("n1"))
    assert one.finished(A.uid) == []
    assert one.lost(A.uid) == []
    assert one.bound == 2
    one.settled(C.uid, Gone())
    one.compensate("no room")
    assert one.condemned() == [Delete(B)]


# Compensation.


def test_compensation() -> None:
    one = binding(A, B, C, ORPHAN)
    one.settled(A.uid, Bound("n1"))
    one.settled(ORPHAN.uid, Bound("n1"))
    assert one.compensate("no room") == [compensating(one)]
    assert one.compensate("again") == []
    assert one.phase is Phase.CONDEMNED
    actions = one.condemned()
    assert actions == [
        *(Cancel(B), Touch(B), Cancel(C), Touch(C)),
        *(Delete(A), Keep(ORPHAN)),
    ]
    assert one.touched(B.uid, "") == [Settled(B, Refused(GIVEN_UP))]
    assert one.touched(C.uid, "n1") == [Settled(C, Bound("n1")), Delete(C)]  # its bind came first
    assert one.deleted(A.uid) == []
    assert one.kept(ORPHAN.uid) == []
    assert one.deleted(C.uid) == [Remove()]
    assert one.removed() == [Ended(False, "no room", (A, C), (ORPHAN,), compensated=True)]


def test_orphans_of_a_gang_that_has_agreed_are_deleted() -> None:
    one = binding(ORPHAN, B, C, delete_uncontrolled=True)
    one.settled(ORPHAN.uid, Bound("n1"))
    one.compensate("no room")
    assert Delete(ORPHAN) in one.condemned()


@pytest.mark.parametrize(("node", "outcome"), [(None, Gone()), ("n9", BoundElsewhere("n9"))])
def test_what_a_touch_finds(node: str | None, outcome: Any) -> None:
    one = binding(A, B, C)
    one.settled(A.uid, Gone())
    one.settled(B.uid, Gone())
    one.compensate("no room")
    one.condemned()
    assert one.touched(C.uid, node) == [Settled(C, outcome), Remove()]


def test_without_any_bind_there_is_nothing_to_compensate() -> None:
    one = binding(A, B, C)
    for gone in (A, B, C):
        one.settled(gone.uid, Gone())
    one.extend([D])
    assert one.compensate("no room") == [Settled(D, Refused(GIVEN_UP)), Remove()]
    assert one.verified() == []


def test_members_that_come_too_late_are_refused() -> None:
    one = binding(A, B, C)
    one.compensate("no room")
    assert one.extend([D]) == [Settled(D, Refused(GIVEN_UP))]


def test_outcomes_between_the_decision_and_its_record_count() -> None:
    one = binding(A, B, C)
    one.compensate("no room")
    for bound in (A, B, C):  # even all of them: it was given up
        assert one.settled(bound.uid, Bound("n1")) == [Settled(bound, Bound("n1"))]
    assert one.condemned() == [Delete(A), Delete(B), Delete(C)]


def test_the_deadline_counts_from_the_first_bind() -> None:
    clock = Clock()
    one = binding(A, B, C, clock=clock)
    clock.now += 50
    one.settled(A.uid, Bound("n1"))
    clock.now += 59
    assert one.expire() == []
    clock.now += 1
    assert one.expire() == [compensating(one)]
    one.condemned()
    one.touched(B.uid, "")
    one.touched(C.uid, "")
    one.deleted(A.uid)
    why = "1 of 3 members were bound within 60 s"
    assert one.removed() == [Ended(False, why, (A,), compensated=True)]


def test_a_complete_gang_has_no_deadline() -> None:
    clock = Clock()
    one = binding(A, B, C, clock=clock)
    for bound in (A, B, C):
        one.settled(bound.uid, Bound("n1"))
    clock.now += 1000
    assert one.expire() == []


# What an heir does.


def resumed(
    state: Any, *bound: Member, bound_for_s: float = 0.0, announced: bool = False, **terms: Any
) -> Any:
    clock = Clock()
    one = transaction(clock=clock, **terms)
    entry = msgspec.structs.replace(one.entry, state=state, epoch=2)
    return one, one.resume(entry, bound, bound_for_s=bound_for_s, announced=announced)


def test_an_heir_goes_on_with_what_is_bound() -> None:
    one, actions = resumed("binding", A, B)
    assert actions == [Short(1)]
    assert one.extend([C]) == [Verify()]
    assert one.verified() == [Bind(C)]
    assert one.settled(C.uid, Bound("n1"))[-1] == Announce()


def test_an_heir_announces_what_is_complete() -> None:
    assert resumed("binding", A, B, C)[1] == [Announce()]
    assert resumed("binding", A, B, already_bound=(C,))[1] == [Announce()]


def test_an_heir_removes_what_was_announced_whoever_was_lost_since() -> None:
    one, actions = resumed("binding", A, announced=True)
    assert actions == [Remove()]
    assert one.removed() == [Ended(True)]


def test_an_heir_removes_what_was_never_begun() -> None:
    one, actions = resumed("binding")
    assert actions == [Remove()]
    assert one.removed() == [Ended(False, "a former leader had bound none of its members")]


def test_an_heir_never_completes_what_was_given_up() -> None:
    one, actions = resumed("compensating", A, B, C)
    assert actions == [Delete(A), Delete(B), Delete(C)]
    assert one.extend([D]) == [Settled(D, Refused(GIVEN_UP))]


def test_the_deadline_runs_on_under_an_heir() -> None:
    one, _ = resumed("binding", A, bound_for_s=60.0)
    assert one.expire() == [compensating(one)]
    one, _ = resumed("binding", A, bound_for_s=59.0)
    assert one.expire() == []
