"""How gangs stand, for people: what `/debug/gangs` serves and `wholepod gangs` shows.

Nothing is kept for it. The state of a gang follows from where its members are, and why one waits is what
its own condition says, as `kubectl describe` would show it; so looking costs only those who look.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from enum import Enum

import msgspec

from scheduler.core.engine import Engine
from scheduler.core.gangs.book import Gang
from scheduler.core.gangs.gang import GangError, GangOptions
from scheduler.core.gangs.ref import GangRef
from scheduler.core.pod_info import PodInfo


class GangState(Enum):
    """Of several that are true, the one furthest down counts."""

    INCOMPLETE = "incomplete"
    """Members are missing, or what describes the gang, or that is wrong."""
    WAITING = "waiting"
    """Its members exist, and found no places."""
    PLANNING = "planning"
    """It is being decided for."""
    HOLDING = "holding"
    """`hoarding`: room is kept for some of its members."""
    CLAIMED = "claimed"
    """`optimistic`: some members have places in mind."""
    COMMITTING = "committing"
    """Its members are being bound, or their volumes made ready for it."""
    BOUND = "bound"
    """At least `minCount` members have nodes."""


class MemberState(Enum):
    GATED = "gated"
    TERMINATING = "terminating"
    WAITING = "waiting"
    HELD = "held"
    CLAIMED = "claimed"
    BINDING = "binding"
    BOUND = "bound"


class MemberView(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    """Without the namespace, which is the gang's."""
    state: MemberState
    node: str = ""
    """Where it is, or where its place is held or claimed."""
    why: str = ""
    """What a waiting member's condition `PodScheduled` says."""


class GangView(msgspec.Struct, frozen=True, rename="camel"):
    namespace: str
    name: str
    source: str
    """As in `ref.Source`."""
    strategy: str
    """Empty when its description can't be read."""
    state: GangState
    min_count: int
    """0 when its description can't be read."""
    existing: int
    """Members that are neither gated nor being deleted."""
    placed: int
    """Of these: with a node, or with one held, claimed or being bound."""
    bound: int
    priority: int
    created: str
    """When the oldest member was; RFC 3339, empty if unknown."""
    waits_for: str = ""
    """Empty when it has all that it needs."""
    reserved_nodes: int = 0
    """Kept for it because it has waited for long."""
    members: tuple[MemberView, ...] = ()


class GangList(msgspec.Struct, frozen=True, rename="camel"):
    """What `/debug/gangs` answers."""

    now: str
    """By the scheduler's clock; RFC 3339."""
    leading: bool
    """Whether this process decides; one that waits for the lease knows no holds and claims."""
    gangs: tuple[GangView, ...]


Places = Mapping[str, tuple[MemberState, str]]
"""uid → (held or claimed, the node)."""


def views(engine: Engine, refs: Iterable[GangRef], committing: Container[GangRef]) -> list[GangView]:
    """How these gangs stand, as far as they (still) have members. `committing`: gangs that have their places
    and are not all bound."""
    dispatch = engine.gangs
    places: dict[GangRef, Places] = {
        holding.gang.ref: {uid: (MemberState.HELD, hold.node) for uid, hold in holding.holds.items()}
        for holding in dispatch.hoarding.holdings
    }
    for ref, claims in dispatch.optimistic.claims.items():
        places[ref] = {uid: (MemberState.CLAIMED, claim.node) for uid, claim in claims.items()}
    gangs = (gang for gang in map(dispatch.book.named, refs) if gang is not None)
    return [_view(engine, g, places.get(g.ref, {}), committing=g.ref in committing) for g in gangs]


def _view(engine: Engine, gang: Gang, places: Places, *, committing: bool) -> GangView:
    dispatch, ref = engine.gangs, gang.ref
    options: GangOptions | None = None
    trouble = ""
    try:
        options = dispatch.book.options(gang)
    except GangError as error:
        trouble = str(error)
    members = tuple(_member(engine, info, places) for info in gang.members.values())
    counts = Counter(member.state for member in members)
    state = _state(engine, gang, options, counts, committing=committing)
    reservation = dispatch.reservations
    oldest = gang.oldest
    return GangView(
        namespace=ref.namespace,
        name=ref.name,
        source=ref.source.value,
        strategy=options.strategy.value if options is not None else "",
        state=state,
        min_count=options.min_count if options is not None else 0,
        existing=gang.existing,
        placed=sum(counts[s] for s in _WITH_A_PLACE),
        bound=counts[MemberState.BOUND],
        priority=oldest.priority,
        created=oldest.pod.metadata.creation_timestamp or "",
        waits_for=trouble or _waits_for(gang, options, state, counts, members),
        reserved_nodes=len(reservation.nodes) if reservation.gang is gang else 0,
        members=members,
    )


_WITH_A_PLACE = (MemberState.HELD, MemberState.CLAIMED, MemberState.BINDING, MemberState.BOUND)


def _member(engine: Engine, info: PodInfo, places: Places) -> MemberView:
    name, placed = info.pod.metadata.name, engine.state.pods.get(info.uid)
    if info.terminating:
        return MemberView(name, MemberState.TERMINATING, info.node_name)
    if info.node_name:
        return MemberView(name, MemberState.BOUND, info.node_name)
    if info.uid in places:
        state, node = places[info.uid]
        return MemberView(name, state, node)
    if placed is not None and not _planned(engine, info.uid):
        return MemberView(name, MemberState.BINDING, placed.node)
    if info.gated:
        return MemberView(name, MemberState.GATED)
    scheduled = next((c for c in info.pod.status.conditions or () if c.type == "PodScheduled"), None)
    return MemberView(
        name, MemberState.WAITING, why=(scheduled.message or "") if scheduled is not None else ""
    )


def _planned(engine: Engine, uid: str) -> bool:
    """Whether the pod is part of an attempt that has not ended."""
    return engine.gangs.is_trying(uid)


def _state(
    engine: Engine,
    gang: Gang,
    options: GangOptions | None,
    counts: Mapping[MemberState, int],
    *,
    committing: bool,
) -> GangState:
    if options is not None and counts[MemberState.BOUND] >= options.min_count:
        return GangState.BOUND
    if committing or counts[MemberState.BINDING]:
        return GangState.COMMITTING
    if counts[MemberState.HELD]:
        return GangState.HOLDING
    if counts[MemberState.CLAIMED]:
        return GangState.CLAIMED
    if any(_planned(engine, uid) for uid in gang.members):
        return GangState.PLANNING
    if options is None or gang.existing < options.min_count:
        return GangState.INCOMPLETE
    return GangState.WAITING


def _waits_for(
    gang: Gang,
    options: GangOptions | None,
    state: GangState,
    counts: Mapping[MemberState, int],
    members: tuple[MemberView, ...],
) -> str:
    if options is None or state is GangState.BOUND:
        return ""
    if state is GangState.COMMITTING:
        return f"{options.min_count - counts[MemberState.BOUND]} more members to be bound"
    missing = options.min_count - gang.existing
    if missing > 0:
        gated = f" ({counts[MemberState.GATED]} are gated)" if counts[MemberState.GATED] else ""
        return f"{missing} more member{'s' if missing > 1 else ''} to exist{gated}{gang.hint}"
    said = [member.why for member in members if member.state is MemberState.WAITING and member.why]
    return said[0] if said else "room for its members"
