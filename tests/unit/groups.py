"""PodGroups' conditions that are noted instead of written."""

from __future__ import annotations

from scheduler.api_objects import PodGroup
from scheduler.kube.gangs.groups import GroupConditions


class Groups(GroupConditions):
    def __init__(self) -> None:
        self.placed: list[str] = []

    async def scheduled(self, group: PodGroup) -> None:
        self.placed.append(group.metadata.name)
