"""What becomes of gangs that were complete and have lost members: between engine and `kube.gangs.restarts`.

By what a gang says, new members are placed as they come (`replace`), or only when they make it complete
again (`keep`); both are rules of planning (`core.gangs.book`). Here is `restart`: the others are deleted,
too. It is decided by what is there and not by what was seen to happen, so it makes no difference who
led when the member was lost, or whether the watch had a gap then. While it is not settled what becomes of
a gang none of its members is planned.
"""

from __future__ import annotations

from collections.abc import Callable

from scheduler.core.engine import Engine
from scheduler.core.gangs.gang import GangError, OnMemberLoss
from scheduler.core.gangs.ref import GangRef
from scheduler.kube.gangs.actions import Member
from scheduler.kube.gangs.restarts import Restart, Restarts
from scheduler.observe.metrics import Metrics


class MemberLoss:
    """Tell it which gangs to `look` at whenever one may have lost a member."""

    def __init__(self, engine: Engine, metrics: Metrics, *, is_committing: Callable[[GangRef], bool]) -> None:
        self._engine, self._metrics, self._is_committing = engine, metrics, is_committing
        self._restarts: Restarts | None = None
        self._settling: dict[str, GangRef] = {}
        """Gangs about which something was asked."""
        self._again: set[GangRef] = set()
        engine.gangs.book.is_settling = lambda ref: ref.key in self._settling

    def serve(self, restarts: Restarts) -> None:
        """Gangs can be started anew from now on."""
        self._restarts = restarts
        self.look_at_all()

    def look_at_all(self) -> None:
        """After a gap: any may have lost members."""
        for gang in list(self._engine.gangs.book):
            self.look(gang.ref)

    def look(self, ref: GangRef) -> None:
        """Whether the gang has lost members and is to start anew."""
        gang = self._engine.gangs.book.named(ref)
        if self._restarts is None or gang is None or self._is_committing(ref):
            return
        if ref.key in self._settling:
            self._again.add(ref)
            return
        try:
            options = self._engine.gangs.book.options(gang)
        except GangError:
            return  # nothing of it is planned; once it can be read it is looked at again
        lost = gang.bound < options.min_count and gang.shows_complete
        if lost and options.on_member_loss is OnMemberLoss.RESTART:
            self._settling[ref.key] = ref
            self._restarts.ask(
                Restart(ref.key, ref.namespace, options.min_count, options.delete_uncontrolled)
            )

    # ---- for Restarts

    def on_leaving(self, gang: str, member: Member, /) -> None:
        """It will be deleted now."""
        known = self._engine.gangs.book.named(self._settling[gang])
        if known is not None:
            known.leave(member.uid)

    def on_kept(self, gang: str, member: Member, /) -> None:
        """It will say now that it stays."""
        known = self._engine.gangs.book.named(self._settling[gang])
        if known is not None:
            known.keep(member.uid)

    def on_settled(self, gang: str, deleted: int, /) -> None:
        """Members that wait are planned again."""
        ref = self._settling.pop(gang)
        if deleted:
            self._metrics.gang_restarts.inc()
        if ref in self._again:
            self._again.discard(ref)
            self.look(ref)
        self._engine.gangs.group_changed(ref)
