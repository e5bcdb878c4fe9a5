"""Planning one gang: its waiting members, beside those that have a node already.

With a topology key each promising domain is planned in turn until one takes the gang. Members that are
placed have chosen the domain for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial

from scheduler.core.gangs.domains import all_but, domain_mask, domains_to_try, values_of
from scheduler.core.gangs.gang import GangOptions
from scheduler.core.gangs.planner import Plan, Planner
from scheduler.core.gangs.ref import GangRef
from scheduler.core.gangs.rooms import Member, Rooms
from scheduler.core.placement import Placement, Within
from scheduler.core.state import ClusterState


class GangPlanning:
    """`need` of the members must find places; `placed` are the nodes of members that have one already.
    `plan` is there when `steps` ends."""

    plan: Plan

    def __init__(
        self,
        ref: GangRef,
        options: GangOptions,
        members: Sequence[Member],
        state: ClusterState,
        rooms: Rooms,
        *,
        placed: Sequence[str],
        need: int,
        kept: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        """`kept`: nodes that are kept for others, as they are when asked."""
        self._kept = kept
        self.ref, self.options, self.members = ref, options, members
        self._state, self._rooms, self._placed, self._need = state, rooms, placed, need

    def steps(self) -> Generator[None, None, None]:
        """Each step costs about one decision. Closing it early leaves nothing assumed."""
        key = self.options.topology_key
        if not key:
            self.plan = yield from self._attempt(None)
            return
        nodes, best, spent = self._state.nodes, Plan({}), False
        values = list(dict.fromkeys(values_of(nodes, key, self._placed)))
        for value in values[:1] if self._placed else domains_to_try(nodes, key, self.members, self._need):
            plan = yield from self._attempt(value)
            if plan.found:
                self.plan = plan
                return
            spent = spent or plan.budget_spent
            if plan.reached >= best.reached:
                best = plan
        self.plan = replace(best, budget_spent=spent)

    def message(self, uid: str) -> str:
        """Why the member was not placed, the plan having failed."""
        plan, own = self.plan, self.failure(uid)
        where = f" in any one {self.options.topology_key}" if self.options.topology_key else ""
        head = f"gang {self.ref}: {plan.reached} of at least {self._need} waiting members fit{where}"
        tail = " (the search for a plan was given up)" if plan.budget_spent else ""
        return f"{head}{tail}: {own.message}" if own.message else f"{head}{tail}."

    def failure(self, uid: str) -> Placement:
        """What keeps the member off, or the first one for which there was no place."""
        failures = self.plan.failures
        return failures.get(uid) or next(iter(failures.values()), Placement(None))

    @property
    def reached(self) -> int:
        """So many members have places, or found some when they were placed in order."""
        return len(self._placed) + (len(self.plan.nodes) or self.plan.reached)

    def _attempt(self, value: str | None) -> Generator[None, None, Plan]:
        """In the one domain with this value, or anywhere."""
        within = partial(self._within, value)
        planner = Planner(self.members, self._state, self._rooms, need=self._need, within=within)
        yield from planner.steps()
        return planner.plan

    def _within(self, value: str | None) -> Within | None:
        nodes, kept = self._state.nodes, self._kept()
        others = all_but(kept, nodes) if kept else None
        if value is None:
            return others
        key = self.options.topology_key
        mask = domain_mask(nodes, key, value)
        if others is not None:
            mask &= others.mask
        return Within(
            mask, f"node(s) are outside {key}={value}" + (f", or {others.others}" if others else "")
        )
