"""One event for each waiting pod whose containers declare the same port.

For pods that came past the webhook, and for those that a Job or another workload created, whose author
never saw the webhook's warning.
"""

from __future__ import annotations

from collections.abc import Callable

from scheduler.controller.ports import REASON, shared_ports
from scheduler.controller.reports import About, Reports
from scheduler.controller.shapes import Key, PortedPod


class PortEvents:
    """What the watch of waiting pods drives; `look(pod)` puts a pod into the queue of `reconcile`."""

    def __init__(self, reports: Reports, look: Callable[[Key], None]) -> None:
        self._reports, self._look = reports, look
        self._notes: dict[Key, tuple[About, str]] = {}

    def replace(self, items: list[PortedPod]) -> None:
        self._notes.clear()
        for item in items:
            self.upsert(item)

    def upsert(self, item: PortedPod) -> None:
        key = Key(item.metadata.namespace, item.metadata.name)
        texts = shared_ports(item.spec)
        if not texts:
            self._notes.pop(key, None)
            return
        self._notes[key] = About.of("v1", "Pod", item.metadata), "; ".join(texts)
        self._look(key)

    def delete(self, item: PortedPod) -> None:
        """It waits no more, or is gone. A scheduler may have been quicker than we: what was to be said is."""

    def on_sync_changed(self, synced: bool) -> None:
        """An old picture warns as well as a new one."""

    async def reconcile(self, key: Key) -> None:
        """Raises KubeError."""
        said = self._notes.get(key)
        if said is not None:
            await self._reports.warn(said[0], REASON, said[1], action="Admission")
            if self._notes.get(key) is said:
                del self._notes[key]
