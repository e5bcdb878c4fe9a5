"""What can never work is refused when it is written, with the remedy, instead of waiting for ever.

A pure function of the object, of the one it replaces, and of what profiles allow. Pods of other schedulers
are nobody's business here. An update is refused for a fault that it brings, never for one that was there: or
a controller could not even take its finalizer off an object that a new cap has made wrong.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from scheduler.api_objects import ClusterObject
from scheduler.controller.ports import shared_ports
from scheduler.controller.wanted import CantBeGroup, one_by_one, too_many, wanted_group
from scheduler.controller.workloads import API_VERSIONS, CREATE, PREFIX, Part, PodTemplate, Workload, workload
from scheduler.core.gangs.commit import TXN_ANNOTATION
from scheduler.core.gangs.gang import (
    OPTIONS,
    GangError,
    GangPolicy,
    check_annotations,
    read_min_count,
)
from scheduler.core.gangs.ref import GANG, Source

POD, POD_GROUP = "Pod", "PodGroup"
WRITTEN_BY_USERS = (GANG, CREATE, *OPTIONS)
KNOWN = (*WRITTEN_BY_USERS, TXN_ANNOTATION)
KINDS = (POD, POD_GROUP, *API_VERSIONS)


@dataclass(slots=True)
class Verdict:
    """`faults` refuse the object; `warnings` are shown to whoever wrote it."""

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Judge:
    """`policies`: of each schedulerName that this Wholepod serves, at least one."""

    def __init__(self, policies: Mapping[str, GangPolicy]) -> None:
        self._policies = policies

    def judge(self, kind: str, new: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> Verdict:
        """For an object of one of KINDS (a PodGroup of either API) that is created, or replaces `old`."""
        verdict = self._verdict(kind, new)
        if old is not None:
            before = self._verdict(kind, old)
            verdict.faults = [fault for fault in verdict.faults if fault not in before.faults]
            if _is_deleted(new):
                verdict.faults.clear()
        return verdict

    def _verdict(self, kind: str, manifest: Mapping[str, Any]) -> Verdict:
        verdict = Verdict()
        try:
            match kind:
                case "Pod":
                    self._template(verdict, msgspec.convert(manifest, PodTemplate), path="")
                case "PodGroup":
                    group = msgspec.convert(manifest, ClusterObject)
                    self._group(verdict, group.metadata.annotations or {})
                case _:
                    self._workload(verdict, workload(kind, manifest))
        except msgspec.ValidationError:
            pass  # not what the API promises: the API server has its own words for that
        return verdict

    def _group(self, verdict: Verdict, annotations: Mapping[str, str]) -> None:
        """Which profile its pods have is not known yet, so what one of them allows is allowed."""
        verdict.warnings += unknown(annotations)
        said = [_options(annotations, policy) for policy in self._policies.values()]
        best = min(said, key=lambda each: (len(each.faults), len(each.warnings)))
        verdict.faults += best.faults
        verdict.warnings += best.warnings

    def _workload(self, verdict: Verdict, owner: Workload) -> None:
        ours = [part for part in owner.parts if part.template.scheduler_name in self._policies]
        if ours:
            verdict.warnings += unknown(owner.annotations)
        for part in ours:
            self._template(verdict, part.template, path=f"{part.path}: ")
            self._annotated(verdict, owner, part)
        if not ours or not owner.wants_group:
            return
        try:
            wanted_group(owner)
        except CantBeGroup as error:
            verdict.faults.append(str(error))
        options = owner.group_options
        for name in dict.fromkeys(part.template.scheduler_name for part in ours):
            said = _options(options, self._policies[name])
            verdict.faults += said.faults
            verdict.warnings += said.warnings

    def _template(self, verdict: Verdict, template: PodTemplate, *, path: str) -> None:
        """A pod, or a pod template at that path."""
        policy = self._policies.get(template.scheduler_name)
        if policy is None:
            return
        verdict.warnings += [path + text for text in shared_ports(template.ports)]
        verdict.warnings += [path + text for text in unknown(template.annotations)]
        gang = template.gang(template.metadata.namespace)
        if gang is None:
            return
        if gang.source is not Source.ANNOTATIONS:
            idle = sorted(set(template.annotations) & {GANG, *OPTIONS})
            if idle:
                verdict.warnings.append(
                    f"{path}of a pod that has a PodGroup the annotations {', '.join(idle)} are not read: "
                    f"write options on the PodGroup {gang.name}"
                )
            return
        try:
            read_min_count(template.annotations, f"a pod with {GANG}")
        except GangError as error:
            verdict.faults.append(f"{path}{error}")
        said = _options(template.annotations, policy)
        verdict.faults += [path + text for text in said.faults]
        verdict.warnings += [path + text for text in said.warnings]

    def _annotated(self, verdict: Verdict, owner: Workload, part: Part) -> None:
        """A gang that annotations of the template alone make. Others' pods may belong to it, too, so what
        looks wrong here may be right; it is not refused."""
        gang = part.template.gang(owner.metadata.namespace)
        if gang is None or gang.source is not Source.ANNOTATIONS:
            return
        try:
            min_count = read_min_count(part.template.annotations, "")
        except GangError:
            return  # said already
        mates = [each for each in owner.parts if each.template.gang(owner.metadata.namespace) == gang]
        at_once = sum(each.at_once for each in mates)
        unless = f"(unless other workloads' pods belong to gang {gang.name}, too)"
        if 0 < at_once < min_count:
            text = too_many(min_count, at_once, [each.size_field for each in mates])
            verdict.warnings.append(f"{part.path}: {text} {unless}")
        elif owner.one_by_one and min_count > 1:
            verdict.warnings.append(f"{part.path}: {one_by_one(owner)} {unless}")


def unknown(annotations: Mapping[str, str]) -> list[str]:
    """A text for each of our annotations that nothing reads: most likely it is misspelt."""
    texts = []
    for key in sorted(annotations):
        if key.startswith(PREFIX) and key not in KNOWN:
            names = [known.removeprefix(PREFIX) for known in WRITTEN_BY_USERS]
            near = difflib.get_close_matches(key.removeprefix(PREFIX), names, n=1)
            known = ", ".join(sorted(WRITTEN_BY_USERS))
            hint = f"did you mean {PREFIX}{near[0]}?" if near else f"known are {known}"
            texts.append(f"annotation {key} is none of Wholepod's; {hint}")
    return texts


def _options(annotations: Mapping[str, str], policy: GangPolicy) -> Verdict:
    try:
        return Verdict(warnings=check_annotations(annotations, policy))
    except GangError as error:
        return Verdict(faults=[str(error)])


def _is_deleted(manifest: Mapping[str, Any]) -> bool:
    metadata = manifest.get("metadata")
    return isinstance(metadata, Mapping) and bool(metadata.get("deletionTimestamp"))
