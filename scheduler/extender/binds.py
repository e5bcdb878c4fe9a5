"""Binds that kube-scheduler asks for: checked once more, assumed, sent, and brought to a definite end.

kube-scheduler waits for the answer only so long (`httpTimeout`), and an answer that it does not wait for
counts as a failure: it forgets the pod and tries again. But a bind cannot be undone, so what has been sent
is followed to its end whatever was answered. Until then the pod keeps its room, and is told apart: asked
about it again, we say that its bind has no outcome yet, and asked for the same bind again, wait for the
same outcome. So a lost answer never binds a pod twice, and never frees room that is taken.

Members of a gang wait here for each other (`plans`), since what is bound can't be taken back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from scheduler.api import Pod, pod_name
from scheduler.core.engine import Engine
from scheduler.core.pod_info import PodInfo
from scheduler.extender.plans import GangPlan, GangPlans, NotNow
from scheduler.extender.verbs import Asked, Refused, Verbs
from scheduler.extender.wire import BindingArgs
from scheduler.kube.binding import BindOutcome, Bound, BoundElsewhere, Gone
from scheduler.kube.binding import Refused as BindRefused
from scheduler.kube.errors import KubeError
from scheduler.kube.payloads import BindRequest
from scheduler.kube.writer import Writer
from scheduler.quantity import QuantityError

_SHARE_TO_GATHER = 0.75
"""Of the time for a bind, for the other members of its gang to come; the rest is for the API server."""
ReadPod = Callable[[str, str], Awaitable[Pod | None]]
"""From namespace and name; None when there is none."""


@dataclass(slots=True, eq=False)
class _UnderWay:
    node: str
    outcome: asyncio.Future[BindOutcome] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


@dataclass(slots=True, eq=False)
class _Gathering:
    """Members of a gang that wait for the others to be bound with."""

    requests: dict[str, BindingArgs] = field(default_factory=dict)
    """By uid."""
    begun: dict[str, _UnderWay] = field(default_factory=dict)
    why_not: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Empty when all of them are on their way."""


class Binds:
    """`on_outcome(kind)` counts what became of binds; `why_not()` says why none may begin now, if so."""

    def __init__(
        self,
        engine: Engine,
        *,
        read_pod: ReadPod,
        on_outcome: Callable[[str], None] = lambda kind: None,
        why_not: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._engine, self._read_pod, self._on_outcome = engine, read_pod, on_outcome
        self._why_not = why_not
        self._under_way: dict[str, _UnderWay] = {}
        self._gathering: dict[GangPlan, _Gathering] = {}

    def connect(self, writer: Writer, verbs: Verbs, plans: GangPlans) -> None:
        """Before `bind`."""
        self._writer, self._verbs, self._plans = writer, verbs, plans

    def __len__(self) -> int:
        return len(self._under_way)

    def held(self, uid: str) -> str | None:
        """For `Verbs`: why nothing can be said of a pod for now."""
        under_way = self._under_way.get(uid)
        if under_way is None:
            return None
        return f"a bind of the pod to node {under_way.node} has been sent and has no outcome yet"

    async def bind(self, args: BindingArgs, timeout_s: float) -> None:
        """Returns when the pod is bound. Raises Refused when it is not, or nobody knows within the time."""
        until = _now() + timeout_s
        under_way = self._under_way.get(args.uid)
        if under_way is None:
            plan = self._plan_of(args)
            if plan is not None:
                under_way = await self._together(plan, args, timeout_s * _SHARE_TO_GATHER)
            else:
                under_way = await self._begin(args, until)
        if under_way is None:
            return
        if under_way.node != args.node:
            raise Refused(self.held(args.uid) or "")
        try:
            outcome = await asyncio.wait_for(asyncio.shield(under_way.outcome), until - _now())
        except TimeoutError:
            raise Refused(
                f"the API server has not said within {timeout_s:g} s whether it was bound"
            ) from None
        match outcome:
            case BoundElsewhere(node):
                raise Refused(f"the pod is on node {node} already")
            case Gone():
                raise Refused("the pod does not exist any more")
            case BindRefused(message):
                raise Refused(message)

    def on_bound(self, uid: str, outcome: BindOutcome) -> None:
        """For `Writer`."""
        self._on_outcome(type(outcome).__name__)
        match outcome:
            case Bound():
                self._engine.bind_confirmed(uid)
            case BindRefused():
                self._engine.bind_failed(uid)
            case _:
                self._engine.bind_void(uid)
        self._under_way.pop(uid).outcome.set_result(outcome)

    # ---- internals

    def _plan_of(self, args: BindingArgs) -> GangPlan | None:
        """None for a pod that is bound by itself. Raises Refused for a member that can't be bound now."""
        plans, uid = self._plans, args.uid
        plan = plans.of(uid)
        if plan is None:
            if plans.is_member(uid) and uid not in self._engine.state.pods:
                raise Refused("the gang's plan has lapsed, or is another's; it is planned again")
            return None
        if plan.nodes[uid] != args.node:
            raise Refused(f"the pod's gang has a place for it on node {plan.nodes[uid]}")
        return plan

    async def _together(self, plan: GangPlan, args: BindingArgs, timeout_s: float) -> _UnderWay | None:
        """Waits until enough members of the pod's gang have come to be bound. Who comes last begins for all
        of them in one go, so that nothing can come between two of them."""
        plans, uid = self._plans, args.uid
        gathering = self._gathering.setdefault(plan, _Gathering())
        gathering.requests[uid] = args
        try:
            if plans.asks(plan, uid):
                self._end(plan, self._begin_all(plan, gathering))
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(gathering.why_not)
        except NotNow as why:
            self._end(plan, str(why))
        except TimeoutError:
            pass
        finally:
            if not gathering.why_not.done() and gathering.requests.get(uid) is args:
                del gathering.requests[uid]
                plans.withdraw(plan, uid)
                if not gathering.requests:
                    self._gathering.pop(plan, None)
        if not gathering.why_not.done():
            raise Refused(
                f"gang {plan.ref}: within {timeout_s:g} s only {len(plan.asked) + 1} of {plan.need} members "
                "came to be bound"
            )
        if why_not := gathering.why_not.result():
            raise Refused(why_not)
        under_way = gathering.begun.get(uid)
        if under_way is None and not self._is_there(args):
            raise Refused("the pod does not exist any more")
        return under_way

    def _end(self, plan: GangPlan, why_not: str) -> None:
        """Tells all who wait for each other. With a reason the plan is of no use any more."""
        if why_not:
            self._plans.drop(plan)
        self._gathering.pop(plan).why_not.set_result(why_not)

    def _begin_all(self, plan: GangPlan, gathering: _Gathering) -> str:
        """Sends the binds of all who wait, or of none; returns why not."""
        why_not = self._why_not() or self._misfit(plan)
        if why_not:
            return why_not
        asked = {uid: self._verbs.known(uid) for uid in gathering.requests}
        for uid in gathering.requests:
            self._plans.hand_over(plan, uid)
        for uid, args in gathering.requests.items():
            known = asked[uid]
            if known is not None and uid not in self._engine.state.pods:
                gathering.begun[uid] = self._send(known, args)
        return ""

    def _misfit(self, plan: GangPlan) -> str:
        """Which member does not fit any more; empty when all do."""
        for uid in plan.asked:
            why = self._verbs.refusal_of_assumed(uid, plan.nodes[uid]) if uid in plan.nodes else None
            if why is not None:
                return f"gang {plan.ref}: a member does not fit any more on {why}"
        return ""

    async def _begin(self, args: BindingArgs, until: float) -> _UnderWay | None:
        """None when the pod is there already: the answer to an earlier request was lost."""
        if self._is_there(args):
            return None
        asked = self._verbs.known(args.uid) or await self._look_up(args, until)
        again = self._under_way.get(args.uid)  # while it was looked up
        if again is not None or self._is_there(args):
            return again
        if (why := self._why_not()) is not None:
            raise Refused(why)
        why = self._verbs.refusal(asked, args.node)
        if why is not None:
            self._on_outcome("Unfit")
            raise Refused(why)
        return self._send(asked, args)

    def _send(self, asked: Asked, args: BindingArgs) -> _UnderWay:
        under_way = self._under_way[args.uid] = _UnderWay(args.node)
        self._engine.assume(asked.info, args.node)
        self._writer.bind(BindRequest(args.namespace, args.name, args.uid, args.node))
        return under_way

    def _is_there(self, args: BindingArgs) -> bool:
        placed = self._engine.state.pods.get(args.uid)
        if placed is None:
            return False
        if placed.node != args.node:
            raise Refused(f"the pod is on node {placed.node} already")
        return True

    async def _look_up(self, args: BindingArgs, until: float) -> Asked:
        """A pod that we were not asked about: another extender's replica was, or this one has restarted."""
        try:
            async with asyncio.timeout_at(until):
                pod = await self._read_pod(args.namespace, args.name)
        except TimeoutError:
            raise Refused("the API server has not shown the pod in time") from None
        except KubeError as error:
            raise Refused(f"the pod can't be read: {error}") from error
        if pod is None or pod.metadata.uid != args.uid:
            raise Refused("the pod does not exist any more")
        if pod.spec.node_name and pod.spec.node_name != args.node:
            raise Refused(f"the pod is on node {pod.spec.node_name} already")
        try:
            return self._verbs.of(PodInfo(pod))
        except QuantityError as error:
            raise Refused(f"pod {pod_name(pod)}: {error}") from error


def _now() -> float:
    return asyncio.get_running_loop().time()
