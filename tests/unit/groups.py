"""PodGroups' conditions that are noted instead of written."""

from __future__ import annotations

from scheduler.api_objects import PodGroup
from scheduler.kube.gangs.groups import GroupConditions, Newest


class Groups(GroupConditions):
    def __init__(self) -> None:
        self.placed: list[str] = []
        self.not_placed: list[tuple[str, str, str]] = []
        """(name, reason, message)."""

    async def scheduled(self, group: PodGroup) -> None:
        self.placed.append(group.metadata.name)

    def not_scheduled(self, newest: Newest, reason: str, message: str) -> None:
        group = newest()
        self.not_placed.append((group.metadata.name if group is not None else "", reason, message))
