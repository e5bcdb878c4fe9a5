"""Gangs through the extender: planned whole, told one member at a time, bound together.

kube-scheduler asks about one pod at a time and knows no gang. So the first member that it asks about has all
of the gang planned (strategy `atomic`), and each member is told the one node of the plan. The plan's room is
kept for a short while, out of what others are told is free. Who asks again renews it, but not without end: a
gang that does not come together gives its room back, and others have their turn. Nothing is bound before so
many members as the gang needs have all asked for their bind: by then each of them has passed kube-scheduler's
own filters and has its room reserved there, too. If they do not come together in time, all of them are
refused, and nothing has happened.

What the protocol has no word for: nobody tells the extender that kube-scheduler has given a pod up, so a plan
ends by its time alone; and what is bound stays bound, should the API server refuse one of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field

from scheduler.core.engine import Engine
from scheduler.core.gangs.gang import GangError, Strategy
from scheduler.core.gangs.ref import GangRef
from scheduler.core.queue import Place, QueuedPod

PLANNING_S = 1.0
"""Of the event loop's time for one gang at most."""
LONGEST_LIVES = 3.0
"""A plan ends after so many times `lives_s`, whoever goes on asking about it."""
_REST = 10.0
"""After a gang was planned in vain it rests for so many times as long as that took: members ask one by one,
and each of them would have it planned again."""


class NotNow(Exception):
    """The gang has no plan; the text says why. `passing`: it may have one soon, with nothing changed that
    kube-scheduler sees."""

    def __init__(self, why: str, *, passing: bool = True) -> None:
        super().__init__(why)
        self.passing = passing


@dataclass(slots=True, eq=False)
class GangPlan:
    """Places of members that have none yet."""

    ref: GangRef
    nodes: dict[str, str]
    """uid → node; the members are assumed there."""
    need: int
    """So many of them have to be bound together."""
    expires: float
    ends: float
    """`expires` is never later."""
    asked: set[str] = field(default_factory=set)
    """Members whose bind was asked for."""

    @property
    def complete(self) -> bool:
        """Whether enough members have come together."""
        return len(self.asked) >= self.need


class GangPlans:
    """Plans that are alive.

    `lives_s`: how long a plan waits for the next thing to be asked about it. `planning_s`: how long the event
    loop may stand for one gang.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Callable[[], float],
        *,
        lives_s: float,
        planning_s: float = PLANNING_S,
    ) -> None:
        self._engine, self._clock, self._lives_s, self._planning_s = engine, clock, lives_s, planning_s
        self._rooms = engine.gangs.workspace.rooms
        self._plans: dict[GangRef, GangPlan] = {}
        self._resting: dict[GangRef, tuple[float, str]] = {}
        """Gangs that are not planned before this time, and why."""
        self.outcomes = dict.fromkeys(("made", "infeasible", "complete", "lapsed"), 0)
        """How many plans were made, or not found, and what became of those made."""

    def __len__(self) -> int:
        return len(self._plans)

    def is_member(self, uid: str) -> bool:
        return self._engine.gangs.book.of(uid) is not None

    def of(self, uid: str) -> GangPlan | None:
        """The plan that the pod is part of."""
        self.expire()
        gang = self._engine.gangs.book.of(uid)
        plan = self._plans.get(gang.ref) if gang is not None else None
        return plan if plan is not None and uid in plan.nodes else None

    def node_for(self, uid: str, allowed: Callable[[str], bool]) -> str:
        """Where a member without a node belongs, of the nodes that are allowed for it. Raises NotNow."""
        plan = self.of(uid)
        if plan is None or not allowed(plan.nodes[uid]):
            if plan is not None:
                if plan.complete:
                    raise NotNow(f"gang {plan.ref} is being bound, and node {plan.nodes[uid]} is not offered")
                self.drop(plan)
            plan = self._make(uid, allowed)
        self._renew(plan)
        return plan.nodes[uid]

    def hand_over(self, plan: GangPlan, uid: str) -> None:
        """The member's room is its bind's business now."""
        del plan.nodes[uid]
        self._rooms.give_back(uid)
        if not plan.nodes:
            del self._plans[plan.ref]
            self.outcomes["complete"] += 1

    def asks(self, plan: GangPlan, uid: str) -> bool:
        """A member's bind is asked for; returns whether enough of them are. Raises NotNow."""
        gone = [each for each in plan.nodes if each not in self._engine.state.pods]
        if gone:
            self.drop(plan)
            raise NotNow(f"gang {plan.ref} has lost a member; it is planned again")
        plan.asked.add(uid)
        self._renew(plan)
        return plan.complete

    def withdraw(self, plan: GangPlan, uid: str) -> None:
        """The member's bind was given up before the others came."""
        plan.asked.discard(uid)

    def expire(self) -> None:
        """Gives back what nobody has asked about for too long, or what has not come together in time."""
        now = self._clock()
        for plan in [plan for plan in self._plans.values() if plan.expires <= now]:
            self.drop(plan)
            if plan.expires == plan.ends and not plan.complete:
                why = f"gang {plan.ref}: its members did not come together in time; others have their turn"
                self._resting[plan.ref] = now + self._lives_s, why
        for ref in [ref for ref, (until, _) in self._resting.items() if until <= now]:
            del self._resting[ref]

    def in_the_way(self, fits: Callable[[], bool]) -> bool:
        """Whether something fits without the room that plans keep, and only without it."""
        planned = [uid for plan in self._plans.values() for uid in plan.nodes]
        if not planned:
            return False
        state = self._engine.state
        for uid in planned:
            state.lift(uid)
        try:
            return fits()
        finally:
            for uid in planned:
                state.put_back(uid)

    def drop(self, plan: GangPlan) -> None:
        """Gives back what is left of it. Nothing happens to one that has ended."""
        if self._plans.get(plan.ref) is not plan:
            return
        del self._plans[plan.ref]
        self.outcomes["lapsed"] += 1
        for uid in plan.nodes:
            self._rooms.give_back(uid)

    # ---- internals

    def _renew(self, plan: GangPlan) -> None:
        plan.expires = min(self._clock() + self._lives_s, plan.ends)

    def _make(self, uid: str, allowed: Callable[[str], bool]) -> GangPlan:
        gangs, state = self._engine.gangs, self._engine.state
        gang = gangs.book.of(uid)
        if gang is None:
            raise NotNow("the pod is not known to be a member of its gang any more")
        if gang.ref in self._resting:
            raise NotNow(self._resting[gang.ref][1])
        try:
            options = gangs.book.options_to_plan(gang)
        except GangError as error:
            raise NotNow(f"gang {gang.ref}: {error}") from error
        if options.strategy is not Strategy.ATOMIC:
            raise NotNow(
                f"gang {gang.ref}: strategy {options.strategy.value} is not served through the extender; "
                "use atomic, or Wholepod as the pods' scheduler",
                passing=False,
            )
        if gang.existing < options.min_count:
            raise NotNow(f"gang {gang.ref}: {gang.existing} of at least {options.min_count} members exist")
        before = self._plans.get(gang.ref)
        if before is not None:  # of members that came earlier
            if not before.complete:
                self.drop(before)
            else:
                raise NotNow(f"gang {gang.ref} is being bound; the pod's turn comes after it")
        waiting: list[QueuedPod] = []
        for member in gang.members:
            queued = self._engine.queue.get(member)
            free = queued is not None and queued.place is not Place.GATED
            if queued is not None and free and member not in state.pods and gang.stays(member):
                waiting.append(queued)
        workspace = gangs.workspace
        need = max(options.min_count - len(workspace.nodes_of(gang)), 1)
        begun = self._clock()
        planning = workspace.planning(gang, options, waiting, need=need)
        self._run(planning.steps(), gang.ref, begun)
        node = planning.plan.nodes.get(uid)
        if node is not None and not allowed(node):
            # kube-scheduler's filters say no where ours say yes: within what it offers, then.
            self._give_back(planning.plan.nodes)
            kept = frozenset(name for name in state.nodes.names if not allowed(name))
            planning = workspace.planning(gang, options, waiting, need=need, kept=kept)
            self._run(planning.steps(), gang.ref, begun)
        nodes = dict(planning.plan.nodes)
        if uid not in nodes:
            self._give_back(nodes)
            self.outcomes["infeasible"] += 1
            self._rest(gang.ref, begun, planning.message(uid))
            # Of plans that end, kube-scheduler hears nothing: then the gang has to be tried again.
            raise NotNow(planning.message(uid), passing=bool(self._plans))
        self.outcomes["made"] += 1
        now = self._clock()
        plan = GangPlan(gang.ref, nodes, need, now + self._lives_s, now + self._lives_s * LONGEST_LIVES)
        self._plans[gang.ref] = plan
        return plan

    def _run(self, steps: Generator[None, None, None], ref: GangRef, begun: float) -> None:
        for _ in steps:
            if self._clock() > begun + self._planning_s:
                steps.close()
                why = f"gang {ref}: planning it takes longer than {self._planning_s:g} s"
                self._rest(ref, begun, why)
                raise NotNow(why)

    def _rest(self, ref: GangRef, begun: float, why: str) -> None:
        now = self._clock()
        self._resting[ref] = now + (now - begun) * _REST, why

    def _give_back(self, uids: Iterable[str]) -> None:
        for uid in uids:
            self._rooms.give_back(uid)
