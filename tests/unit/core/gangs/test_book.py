"""What is known of a gang's members at any time."""

from __future__ import annotations

import random

from scheduler.core.gangs.book import Gang, GangBook
from scheduler.core.gangs.commit import GANG_GIVEN_UP, TXN_ANNOTATION, is_bound, shows_complete
from scheduler.core.gangs.gang import GangPolicy
from scheduler.core.gangs.ref import GangRef, Source
from scheduler.core.objects import ClusterObjects
from scheduler.core.pod_info import PodInfo
from tests.builders import SCHEDULER_NAME, make_pod
from tests.unit.core.gangs.words import member


def some_state_of(name: str, rng: random.Random) -> PodInfo:
    pod = make_pod().named(name)
    if rng.random() < 0.3:
        pod.gated()
    elif rng.random() < 0.6:
        pod.on("node")
    if rng.random() < 0.5:
        pod.annotations({TXN_ANNOTATION: "t"})
    if rng.random() < 0.2:
        pod.status(conditions=[{"type": GANG_GIVEN_UP, "status": "True"}])
    if rng.random() < 0.2:
        pod.terminating()
    return pod.info()


def test_counts_of_members_follow_every_change() -> None:
    rng = random.Random(1)
    gang = Gang(GangRef(Source.ANNOTATIONS, "default", "g"))
    seen = set()
    for _ in range(3000):
        info = some_state_of(f"p{rng.randrange(6)}", rng)
        change = rng.choice([None, None, None, None, gang.leave, gang.keep, gang.drop])
        if change is None:
            gang.put(info)
        elif change != gang.drop or info.uid in gang.members:
            change(info.uid)
        staying = [pod for uid, pod in gang.members.items() if gang.stays(uid)]
        bound = [pod for pod in staying if is_bound(pod.pod)]
        complete = any(shows_complete(pod.pod) for pod in bound if pod.uid not in gang.kept)
        assert gang.existing == sum(not pod.gated for pod in staying)
        assert (gang.bound, gang.shows_complete) == (len(bound), complete)
        seen.add((gang.existing, gang.bound, gang.shows_complete))
    assert len(seen) > 15


def test_what_a_gang_asks_for_is_read_again_when_its_oldest_member_changes() -> None:
    book = GangBook(ClusterObjects(), {SCHEDULER_NAME: GangPolicy()})
    young = member("young", **{"min-count": "4"}).created("2026-01-02T00:00:00Z").info()
    gang = book.upsert(young)
    assert gang is not None
    assert book.options(gang).min_count == 4
    for count in ("2", "3"):
        old = member("old", **{"min-count": count}).created("2026-01-01T00:00:00Z")
        book.upsert(old.info())
        assert book.options(gang).min_count == int(count)
    book.remove(old.info().uid)
    assert book.options(gang).min_count == 4
