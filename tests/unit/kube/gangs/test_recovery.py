"""What a new leader makes of the journal's entries and the pods that are there."""

from typing import Any

import pytest

from scheduler.api import ObjectMeta, OwnerReference, Pod, PodCondition, PodSpec, PodStatus
from scheduler.kube.gangs.actions import TXN_ANNOTATION, Member
from scheduler.kube.gangs.recovery import Found, Recovery, Unfinished
from scheduler.kube.journal_format import Entry

AT = "2026-03-04T05:06:07Z"
AT_S = 1772600767.0


def entry(txn: str = "t", gang: str = "g", **changes: Any) -> Entry:
    fields: dict[str, Any] = {"txn": txn, "gang": gang, "min_count": 3, "epoch": 1, "started": 5}
    return Entry(**(fields | changes))


def pod(name: str, *, gang: str = "g", node: str = "", txn: str = "", owned: bool = True, **more: Any) -> Pod:
    condition = PodCondition(type="PodScheduled", status="True", last_transition_time=more.get("at", AT))
    return Pod(
        metadata=ObjectMeta(
            name=name,
            namespace="ns",
            uid=f"uid-{name}",
            resource_version="1",
            labels={"gang": gang},
            annotations={TXN_ANNOTATION: txn} if txn else None,
            owner_references=[OwnerReference(controller=True)] if owned else None,
            deletion_timestamp=more.get("deleted"),
        ),
        spec=PodSpec(node_name=node or None),
        status=PodStatus(phase=more.get("phase", "Pending"), conditions=[condition] if node else None),
    )


def member(name: str, node: str = "", *, version: str = "1", owned: bool = True) -> Member:
    return Member("ns", name, f"uid-{name}", version, node, owned)


def recover(entries: list[Entry], *pods: Pod) -> Recovery:
    return Recovery(entries, pods, gang_of=lambda pod: (pod.metadata.labels or {}).get("gang"))


def test_unbound_members_of_journalled_gangs_are_touched_and_no_others() -> None:
    recovery = recover(
        [entry()],
        pod("a", node="n1", txn="t"),
        pod("b"),
        pod("c"),
        pod("stranger", gang="other"),
        pod("leaving", deleted=AT),
    )
    assert recovery.to_touch() == (member("b"), member("c"))
    with pytest.raises(RuntimeError):
        recovery.unfinished(AT_S)
    recovery.touched("uid-b", Found("7", "", ""))
    recovery.touched("uid-c", None)
    assert recovery.to_touch() == ()
    [found] = recovery.unfinished(AT_S + 12)
    assert found == Unfinished(entry(), (member("a", "n1"),), (), (member("b", version="7"),), 12.0)


def test_a_bind_that_came_before_the_touch_counts() -> None:
    recovery = recover([entry()], pod("a"), pod("b"))
    recovery.touched("uid-a", Found("7", "n1", "t"))
    recovery.touched("uid-b", Found("8", "n1", "somebody's"))
    [found] = recovery.unfinished(AT_S)
    assert (found.bound, found.others) == (
        (member("a", "n1", version="7"),),
        (member("b", "n1", version="8"),),
    )
    assert found.bound_for_s == 0.0


def test_what_was_bound_for_an_entry_counts_whoever_calls_it_a_member_now() -> None:
    """Its label may have changed, and its scheduler may be served no more."""
    recovery = recover([entry()], pod("a", node="n1", txn="t"), pod("b", gang="", node="n1", txn="t"))
    [found] = recovery.unfinished(AT_S)
    assert found.bound == (member("a", "n1"), member("b", "n1"))


def test_members_that_were_bound_otherwise_count_but_are_not_ours() -> None:
    recovery = recover(
        [entry()],
        pod("a", node="n1", txn="t", owned=False),
        pod("by-hand", node="n1"),
        pod("earlier", node="n1", txn="s"),
        pod("done", node="n1", txn="t", phase="Succeeded"),
        pod("failed", node="n1", txn="t", phase="Failed"),
        pod("leaving", node="n1", txn="t", deleted=AT),
    )
    [found] = recovery.unfinished(AT_S)
    assert found.bound == (member("a", "n1", owned=False),)
    assert [other.name for other in found.others] == ["by-hand", "earlier", "done"]


def test_the_first_bind_counts_for_the_deadline() -> None:
    pods = [
        pod("a", node="n1", txn="t", at="2026-03-04T05:06:37Z"),
        pod("b", node="n1", txn="t"),
        pod("earlier", node="n1", txn="s", at="2026-03-04T01:00:00Z"),
    ]
    assert recover([entry()], *pods).unfinished(AT_S + 40)[0].bound_for_s == 40.0
    assert recover([entry()], *pods).unfinished(AT_S - 40)[0].bound_for_s == 0.0  # clocks may differ


def test_gangs_come_in_the_order_of_their_start() -> None:
    entries = [entry("t1", "g", started=9), entry("t2", "h", started=3)]
    found = recover(
        entries, pod("a", node="n1", txn="t1"), pod("b", gang="h", node="n1", txn="t2")
    ).unfinished(AT_S)
    assert [unfinished.entry.txn for unfinished in found] == ["t2", "t1"]
    assert [len(unfinished.bound) for unfinished in found] == [1, 1]
