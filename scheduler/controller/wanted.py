"""The PodGroup that a workload asks for with `wholepod.io/create-pod-group`, or why there can be none.

Pods join a group by a label, and pod templates can't be changed once a Job exists. So the label has to be
in the template, put there by its author; the group gets the name that it says. Nobody's pods are altered
behind their backs, and no pod is placed alone because something was down when it was created.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scheduler.controller.shapes import GROUP_API, GroupObject
from scheduler.controller.workloads import CREATE, Workload
from scheduler.core.gangs.gang import MIN_COUNT, GangError, read_min_count
from scheduler.core.gangs.ref import POD_GROUP_LABEL


class CantBeGroup(ValueError):
    """Why there can be no group, and what to change. `reason` is that of the event."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class WantedGroup:
    name: str
    min_member: int
    annotations: dict[str, str]

    def manifest(self, owner: Workload) -> dict[str, Any]:
        """To be created. Without `blockOwnerDeletion`, which takes rights on the workload's finalizers."""
        metadata: dict[str, Any] = {
            "name": self.name,
            "namespace": owner.metadata.namespace,
            "ownerReferences": [
                {
                    "apiVersion": owner.api_version,
                    "kind": owner.kind,
                    "name": owner.metadata.name,
                    "uid": owner.metadata.uid,
                    "controller": True,
                }
            ],
        }
        if self.annotations:
            metadata["annotations"] = self.annotations
        return {
            "apiVersion": GROUP_API,
            "kind": "PodGroup",
            "metadata": metadata,
            "spec": {"minMember": self.min_member},
        }

    def changes(self, group: GroupObject) -> dict[str, Any]:
        """A merge patch that makes the group what it should be; empty if it is. Other annotations stay."""
        changes: dict[str, Any] = {}
        if group.spec.min_member != self.min_member:
            changes["spec"] = {"minMember": self.min_member}
        have = group.metadata.annotations or {}
        annotations = {key: value for key, value in self.annotations.items() if have.get(key) != value}
        if annotations:
            changes["metadata"] = {"annotations": annotations}
        return changes


def wanted_group(owner: Workload) -> WantedGroup | None:
    """None when it asks for none, or runs no pods now. Raises CantBeGroup."""
    if not owner.wants_group or owner.finished:
        return None
    labelled = [part for part in owner.parts if part.template.group_name]
    names = sorted({part.template.group_name for part in labelled})
    if not names:
        paths = ", ".join(f"{part.path}.metadata.labels" for part in owner.parts)
        raise CantBeGroup(
            "PodGroupLabelMissing",
            f"{CREATE} is set, but no pod template says which PodGroup its pods belong to: add the label "
            f"{POD_GROUP_LABEL}: {owner.metadata.name or 'NAME'} to {paths}",
        )
    if len(names) > 1:
        raise CantBeGroup(
            "PodGroupLabelsDiffer",
            f"{CREATE} asks for one PodGroup, but the label {POD_GROUP_LABEL} of the pod templates says "
            f"{', '.join(names)}: use one name in all of them",
        )
    at_once = sum(part.at_once for part in labelled)
    if at_once == 0:
        return None  # scaled to nothing; what is there stays
    min_member = at_once
    if MIN_COUNT in owner.annotations:
        try:
            min_member = read_min_count(owner.annotations, f"the {owner.kind}")
        except GangError as error:
            raise CantBeGroup("MinCountInvalid", str(error)) from error
    if min_member > at_once:
        raise CantBeGroup(
            "MinCountTooLarge",
            too_many(min_member, at_once, [part.size_field for part in labelled]),
        )
    if owner.one_by_one and min_member > 1:
        raise CantBeGroup("PodsOneByOne", one_by_one(owner))
    return WantedGroup(names[0], min_member, owner.group_options)


def too_many(min_count: int, at_once: int, fields: list[str]) -> str:
    """Why such a gang never gets complete."""
    return (
        f"{MIN_COUNT} is {min_count}, but only {at_once} pods run at a time ({', '.join(fields)}): the gang "
        f"would never be complete; lower {MIN_COUNT} to {at_once} or less, or run more pods"
    )


def one_by_one(owner: Workload) -> str:
    """Why such a gang never gets complete."""
    return (
        f"the {owner.kind} creates pods only after earlier ones run, and these wait for their gang: it would "
        f"never be complete; {owner.one_by_one}"
    )


def owned_by(group: GroupObject, owner: Workload) -> bool:
    return any(each.uid == owner.metadata.uid for each in group.metadata.owner_references or ())


def owned_by_namesake(group: GroupObject, owner: Workload) -> bool:
    """Whether it was created for a workload that was deleted, and created anew under its name."""
    return any(
        each.controller and (each.kind, each.name) == (owner.kind, owner.metadata.name)
        for each in group.metadata.owner_references or ()
    )
