"""How many gangs are in which state, for metrics: what `view` says of each, without the words.

Gangs come and go by the thousand, and this is asked every few seconds, so it looks no further than it must:
at the members of gangs that are not bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container

from scheduler.core.engine import Engine
from scheduler.core.gangs.book import Gang
from scheduler.core.gangs.gang import GangError
from scheduler.core.gangs.view import GangState

UNKNOWN_STRATEGY = "unknown"
"""Of gangs whose description is missing or wrong."""


def census(engine: Engine) -> Counter[tuple[GangState, str]]:
    """(state, strategy) → gangs. One whose members wait for their volumes only is still `WAITING`."""
    dispatch = engine.gangs
    held = {holding.gang.ref: holding.holds for holding in dispatch.hoarding.holdings}
    counts: Counter[tuple[GangState, str]] = Counter()
    for gang in dispatch.book:
        try:
            options = dispatch.book.options(gang)
        except GangError:
            counts[GangState.INCOMPLETE, UNKNOWN_STRATEGY] += 1
            continue
        holds, claims = held.get(gang.ref, {}), dispatch.optimistic.claims.get(gang.ref, {})
        if gang.bound >= options.min_count:
            state = GangState.BOUND
        elif _is_binding(engine, gang, holds if holds else claims):
            state = GangState.COMMITTING
        elif holds:
            state = GangState.HOLDING
        elif claims:
            state = GangState.CLAIMED
        elif dispatch.planning and any(map(dispatch.is_trying, gang.members)):
            state = GangState.PLANNING
        else:
            state = GangState.INCOMPLETE if gang.existing < options.min_count else GangState.WAITING
        counts[state, options.strategy.value] += 1
    return counts


def held_memory_bytes(engine: Engine) -> Counter[str]:
    """Strategy → memory that is held at the moment."""
    held: Counter[str] = Counter()
    for holding in engine.gangs.hoarding.holdings:
        held[holding.strategy] += holding.memory_bytes
    return held


def _is_binding(engine: Engine, gang: Gang, places: Container[str]) -> bool:
    """Whether a member has a node that the watch does not show yet, and that is no mere plan."""
    placed, dispatch = engine.state.pods, engine.gangs
    return any(
        uid in placed
        and not (info.node_name or info.terminating or uid in places)
        and not (dispatch.planning and dispatch.is_trying(uid))
        for uid, info in gang.members.items()
    )
