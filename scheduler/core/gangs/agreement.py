"""What pods of one native PodGroup must have in common, with each other and with their group.

kube-scheduler plans, and has others evicted for, a group as if it were one pod, so there must be one priority
and one policy to go by. Members that differ keep the whole group waiting, with kube-scheduler's words.
Source: validatePodGroup (pkg/scheduler/schedule_one_podgroup.go).
"""

from __future__ import annotations

from collections.abc import Collection

from scheduler.api_objects import PodGroup
from scheduler.core.pod_info import PodInfo

Look = tuple[str, int, bool]
"""Of a member: its schedulerName, its priority, whether it preempts."""

_ALL = "all pods in a single pod group should have the same"


def look_of(info: PodInfo) -> Look:
    return info.pod.spec.scheduler_name or "", info.priority, info.preempts


def disagreement(looks: Collection[Look], group: PodGroup) -> str:
    """What is not the same; empty when all is. `looks`: each that any member has, once."""
    names, priorities, policies = (sorted(set(column)) for column in zip(*looks, strict=True))
    if len(names) > 1:
        return f'{_ALL} .spec.schedulerName set, got: "{names[0]}" and "{names[1]}"'
    wanted = group.spec.priority
    others = [priority for priority in priorities if priority != wanted]
    if wanted is not None and others:
        return f"{_ALL} priority as the pod group's priority, got {others[0]} and {wanted}"
    asked = group.spec.preemption_policy
    if asked is not None and policies != [asked != "Never"]:
        got = next(_policy(policy) for policy in policies if policy != (asked != "Never"))
        return f"{_ALL} preemption policy as the pod group's preemption policy, got {got} and {asked}"
    if len(policies) > 1:
        return f"{_ALL} preemption policy, got {_policy(policies[0])} and {_policy(policies[1])}"
    return ""


def _policy(preempts: object) -> str:
    return "PreemptLowerPriority" if preempts else "Never"
