"""What is answered: requests → answers, on the core's state. No I/O; nothing waits.

kube-scheduler has run its own filters before it asks, and passes the nodes that are left. So a node that
fails here fails by what it cannot know: its picture and ours differ, our profile has filters of its own, or
a bind of ours is under way.

One evaluation serves all verbs: filter fills the profile's caches (`core.cycle`), and the prioritize that
follows reads them. A pod is decoded once: the same bytes are the same pod.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scheduler.api import Pod, pod_name
from scheduler.core.cycle import Cycle
from scheduler.core.engine import Engine
from scheduler.core.filter_answers import PASSES
from scheduler.core.placement import Offer
from scheduler.core.plugin import Mask, Scores
from scheduler.core.pod_info import PodInfo
from scheduler.core.profile import Key
from scheduler.core.recent import Recent
from scheduler.extender.plans import GangPlans, NotNow
from scheduler.extender.wire import (
    MAX_SCORE,
    Args,
    FilterResult,
    HostPriority,
    MetaVictims,
    PreemptionArgs,
    PreemptionResult,
    filter_result,
)
from scheduler.quantity import QuantityError

UnknownNodes = Literal["refuse", "pass"]
UNKNOWN = "node is not known to the extender (yet)"
_PODS_REMEMBERED = 4096
"""Between the first question about a pod and its bind: with volumes to make, minutes."""
_SECOND_BEST = MAX_SCORE - 1


@dataclass(frozen=True, slots=True)
class Asked:
    """A pod that somebody asks about, and who decides for its kind."""

    info: PodInfo
    cycle: Cycle
    key: Key


class Refused(Exception):
    """There is no answer; the text says why, and belongs into the answer's `Error`."""


class Verbs:
    """Answers on an engine's state.

    `unknown_nodes`: what becomes of nodes that the state does not have; `held` says why a pod can't be
    decided for just now (a bind of it has no outcome), None for all others; `plans` are asked about members
    of gangs.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        unknown_nodes: UnknownNodes = "refuse",
        held: Callable[[str], str | None] = lambda uid: None,
        plans: GangPlans | None = None,
    ) -> None:
        self._engine, self._passes_unknown, self._held = engine, unknown_nodes == "pass", held
        self._nodes, self._plans = engine.state.nodes, plans
        self._default = next(iter(engine.cycles))
        self._by_bytes: Recent[bytes, Asked] = Recent(64)
        self._by_uid: Recent[str, Asked] = Recent(_PODS_REMEMBERED)

    def filter(self, args: Args) -> FilterResult:
        """Raises Refused."""
        asked = self._asked(args.pod, args.pod_bytes)
        self._expire()
        if (why := self._held(asked.info.uid)) is not None:
            raise Refused(why)
        names = args.names
        if names is None:
            return filter_result(args, None)
        if self._plans is not None and self._plans.is_member(asked.info.uid):
            return self._filter_member(self._plans, asked, args, names)
        rows = self._rows(names)
        offer = asked.cycle.offer(asked.info, asked.key)
        passing = self._passing(offer, rows)
        if passing.all():
            return filter_result(args, None)
        if not passing.any() and self._only_plans_are_in_the_way(asked, rows):
            raise Refused("the room that would do is kept for a gang, until it is bound or its plan ends")
        curable: dict[str, str] = {}
        lasting: dict[str, str] = {}
        texts = _Texts(asked, offer)
        for place in np.flatnonzero(~passing).tolist():
            row = int(rows[place])
            text, for_good = (UNKNOWN, False) if row < 0 else texts.of(row)
            (lasting if for_good else curable)[names[place]] = text
        return filter_result(
            args, passing.tolist(), failed_nodes=curable, failed_and_unresolvable_nodes=lasting
        )

    def prioritize(self, args: Args) -> list[HostPriority]:
        """0..10 for each of the nodes, 10 for the best ones alone. Raises Refused."""
        asked = self._asked(args.pod, args.pod_bytes)
        names = args.names or []
        plan = self._plans.of(asked.info.uid) if self._plans is not None else None
        if plan is not None:
            planned = plan.nodes[asked.info.uid]
            return [HostPriority(name, MAX_SCORE if name == planned else 0) for name in names]
        rows = self._rows(names)
        scores = np.zeros(len(names), np.int64)
        passing = self._passing(asked.cycle.offer(asked.info, asked.key), rows) & (rows >= 0)
        if passing.any():
            scores[passing] = _ten(*asked.cycle.rate(asked.info, asked.key, rows[passing]))
        return list(map(HostPriority, names, scores.tolist()))

    def preempt(self, args: PreemptionArgs) -> PreemptionResult:
        """The nodes where the pod fits once these victims are gone, with the same victims. Raises Refused."""
        asked = self._asked(args.pod, args.pod_bytes)
        self._expire()
        if self._plans is not None and self._plans.is_member(asked.info.uid):
            # Room for one of them is of no use.
            return PreemptionResult({})
        kept = {node: victims for node, victims in args.victims.items() if self._helps(asked, node, victims)}
        return PreemptionResult(kept)

    def refusal(self, asked: Asked, node: str) -> str | None:
        """Why the pod does not fit on the node as things stand; None when it does."""
        row = self._nodes.row_of.get(node)
        if row is None:
            return None if self._passes_unknown else f"{UNKNOWN}: {node}"
        offer = asked.cycle.offer(asked.info, asked.key)
        if self._passing(offer, np.array([row], np.intp))[0]:
            return None
        return f"{node}: {_Texts(asked, offer).of(row)[0]}"

    def refusal_of_assumed(self, uid: str, node: str) -> str | None:
        """The same of a pod that is assumed there."""
        asked, state = self.known(uid), self._engine.state
        if asked is None:
            return "the pod was not asked about"
        state.lift(uid)
        try:
            return self.refusal(asked, node)
        finally:
            state.put_back(uid)

    def known(self, uid: str) -> Asked | None:
        """A pod that was asked about lately, or waits."""
        asked = self._by_uid.get(uid)
        queued = self._engine.queue.get(uid) if asked is None else None
        return self.of(queued.info) if queued is not None else asked

    def of(self, info: PodInfo) -> Asked:
        """A pod, by the profile of its schedulerName, or the first one."""
        name = info.pod.spec.scheduler_name or ""
        cycle = self._engine.cycles.get(name) or self._engine.cycles[self._default]
        return Asked(info, cycle, cycle.read_key(info))

    # ---- internals

    def _filter_member(self, plans: GangPlans, asked: Asked, args: Args, names: list[str]) -> FilterResult:
        """The one node that the gang's plan has for the pod. Without a plan none: and no preemption, which
        would be for this one alone."""
        offered = set(names)
        try:
            node = plans.node_for(asked.info.uid, offered.__contains__)
        except NotNow as why:
            if why.passing:  # as a failure: what fits nowhere is not tried again before the cluster changes
                raise Refused(str(why)) from why
            failed = dict.fromkeys(names, str(why))
            return filter_result(args, [False] * len(names), failed_and_unresolvable_nodes=failed)
        elsewhere = f"the pod's gang has a place for it on node {node}"
        failed = {name: elsewhere for name in names if name != node}
        return filter_result(args, [name == node for name in names], failed_and_unresolvable_nodes=failed)

    def _expire(self) -> None:
        """Others are told what is free, so plans must not outlive their time."""
        if self._plans is not None:
            self._plans.expire()

    def _only_plans_are_in_the_way(self, asked: Asked, rows: NDArray[np.intp]) -> bool:
        """Their end is no event for kube-scheduler, and no reason to preempt."""
        known = rows[rows >= 0]
        return self._plans is not None and self._plans.in_the_way(
            lambda: asked.cycle.rejected_by(asked.info, known) is None
        )

    def _asked(self, pod: Pod, raw: bytes) -> Asked:
        digest = blake2b(raw).digest()
        asked = self._by_bytes.get(digest)
        if asked is None:
            try:
                asked = self.of(PodInfo(pod))
            except QuantityError as error:
                raise Refused(f"pod {pod_name(pod)}: {error}") from error
            self._by_bytes.put(digest, asked)
        return self._by_uid.put(asked.info.uid, asked)

    def _rows(self, names: Sequence[str]) -> NDArray[np.intp]:
        """intp[names]; -1 for a node that is not known."""
        row_of = self._nodes.row_of
        return np.fromiter((row_of.get(name, -1) for name in names), np.intp, len(names))

    def _passing(self, offer: Offer, rows: NDArray[np.intp]) -> Mask:
        """bool[rows]."""
        n = len(self._nodes)
        fits = np.empty(n + 1, np.bool_)  # the last one is what -1 means
        fits[:n] = False
        if offer.rejection is None:
            fits[:n] = offer.statuses.passing
        if offer.only is not None:
            considered = np.zeros(n, np.bool_)
            considered[offer.only] = True
            fits[:n] &= considered
        fits[n] = self._passes_unknown
        return fits[rows]

    def _helps(self, asked: Asked, node: str, victims: MetaVictims) -> bool:
        state, row = self._engine.state, self._nodes.row_of.get(node)
        if row is None:
            return self._passes_unknown
        uids = [victim.uid for victim in victims.pods]
        # Those that are gone already, or elsewhere, are no reason to say no: there is more room than thought.
        here = [uid for uid in uids if uid in state.pods and state.pods[uid].node == node]
        for uid in here:
            state.lift(uid)
        try:
            return asked.cycle.rejected_by(asked.info, np.array([row], np.intp)) is None
        finally:
            for uid in here:
                state.put_back(uid)


class _Texts:
    """Why nodes fail: kube-scheduler's words, each put together once."""

    def __init__(self, asked: Asked, offer: Offer) -> None:
        self._asked, self._offer = asked, offer
        self._known: dict[tuple[int, int], str] = {}

    def of(self, row: int) -> tuple[str, bool]:
        """(text, whether evictions could not cure it)."""
        offer = self._offer
        if offer.rejection is not None:
            return offer.rejection, True
        first, bits = int(offer.statuses.first[row]), int(offer.statuses.bits[row])
        if first == PASSES:  # it is not among those in question
            return f"node(s) didn't satisfy plugin(s) [{' '.join(sorted(offer.narrowed_by))}]", True
        text = self._known.get((first, bits))
        if text is None:
            reasons = self._asked.cycle.profile.filters[first].reasons(self._asked.info)
            text = ", ".join(reason for k, reason in enumerate(reasons) if bits >> k & 1)
            self._known[first, bits] = text
        return text, bool(offer.statuses.unresolvable[row])


def _ten(totals: Scores, best: Mask) -> NDArray[np.int64]:
    """Totals as 0..10: the best ones 10, all others less, in proportion."""
    low, high = float(totals.min()), float(totals.max())
    if high <= low:
        return np.where(best, MAX_SCORE, _SECOND_BEST)
    scaled = ((totals - low) * (_SECOND_BEST / (high - low))).astype(np.int64)
    return np.where(best, MAX_SCORE, np.clip(scaled, 0, _SECOND_BEST))
