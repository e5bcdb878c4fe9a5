"""From a request's bytes to its answer's: when there is an answer at all, and by when.

Nothing is answered on a picture that is not complete and current: out of sync, or older than the version of
the pod that is asked about, we say so rather than send a pod to the wrong node. With `ignorable: true`
kube-scheduler then decides without us; with `false` the pod waits and is tried again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from scheduler.api import Pod, pod_name
from scheduler.extender import wire
from scheduler.extender.binds import Binds
from scheduler.extender.following import Progress
from scheduler.extender.metrics import Metrics
from scheduler.extender.server import ANSWERED, REFUSED, Answer, NoAnswer, Unavailable
from scheduler.extender.verbs import Refused, Verbs

log = structlog.get_logger(__name__)

_SHARE = 0.8
"""Of kube-scheduler's timeout: the rest is for the way there and back."""
_CATCH_UP_SHARE = 0.4
"""Of it, for the watch to come as far as kube-scheduler's."""


class Answers:
    """`why_not()` says why the state can't be trusted for now, None when it can."""

    def __init__(
        self,
        verbs: Verbs,
        binds: Binds,
        progress: Progress,
        metrics: Metrics,
        *,
        http_timeout_s: float,
        why_not: Callable[[], str | None],
    ) -> None:
        self._verbs, self._binds, self._progress, self._metrics = verbs, binds, progress, metrics
        self._timeout_s, self._why_not = http_timeout_s, why_not
        self._nodes = {verb: metrics.nodes.labels(verb) for verb in ("filter", "prioritize", "preempt")}

    def by_verb(self) -> dict[str, Answer]:
        return {
            "filter": self._filter,
            "prioritize": self._prioritize,
            "preempt": self._preempt,
            "bind": self._bind,
        }

    async def _filter(self, body: bytes) -> tuple[str, bytes]:
        args = wire.decode_args(body)
        self._nodes["filter"].observe(len(args.names or ()))
        try:
            return ANSWERED, wire.encode(await self._on_current_state(args.pod, self._verbs.filter, args))
        except (Refused, Unavailable) as error:
            return REFUSED, wire.encode(wire.FilterResult(error=str(error)))

    async def _prioritize(self, body: bytes) -> tuple[str, bytes]:
        args = wire.decode_args(body)
        self._nodes["prioritize"].observe(len(args.names or ()))
        return await self._or_unavailable(args.pod, self._verbs.prioritize, args)

    async def _preempt(self, body: bytes) -> tuple[str, bytes]:
        args = wire.decode_preemption_args(body)
        self._nodes["preempt"].observe(len(args.victims))
        return await self._or_unavailable(args.pod, self._verbs.preempt, args)

    async def _bind(self, body: bytes) -> tuple[str, bytes]:
        args = wire.decode_binding_args(body)
        try:
            if (why := self._why_not()) is not None:
                raise Refused(why)
            await self._binds.bind(args, self._timeout_s * _SHARE)
        except Refused as error:
            return REFUSED, wire.encode(wire.BindingResult(f"{error}"))
        return ANSWERED, wire.encode(wire.BindingResult())

    async def _or_unavailable(self, pod: Pod, verb: Callable[[Any], Any], args: Any) -> tuple[str, bytes]:
        try:
            return ANSWERED, wire.encode(await self._on_current_state(pod, verb, args))
        except Refused as error:
            raise NoAnswer(str(error)) from error

    async def _on_current_state(self, pod: Pod, verb: Callable[[Any], Any], args: Any) -> Any:
        version = pod.metadata.resource_version
        if not await self._progress.wait_for(version, self._timeout_s * _CATCH_UP_SHARE):
            self._metrics.behind.inc()
            raise Unavailable(f"the extender's watch of pods has not come to version {version} of the pod")
        if (why := self._why_not()) is not None:
            raise Unavailable(why)
        try:
            return verb(args)
        except Refused:
            raise
        except Exception as error:  # any plugin may come from elsewhere
            log.exception("deciding failed", pod=pod_name(pod))
            raise Refused(f"deciding failed with {type(error).__name__}: {error}") from error
