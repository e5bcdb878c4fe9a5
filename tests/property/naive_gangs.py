"""Whether a gang has a plan, found out by trying them all, without any of the scheduler's own code.

A plan puts at least `need` of the members on nodes. In some order each of them passes its filters beside
those placed before it, or else at the end, beside all the others. Since no rule here can be cured by taking
a pod away, a pair that an anti-affinity keeps apart, or a node that is too full, rules a plan out in any
order; only affinity and spreading depend on it.

Rules: k8s.io/kubernetes pkg/scheduler/framework/plugins, noderesources, interpodaffinity, podtopologyspread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class NaiveNode:
    """Values of labels by key, and what is free."""

    domains: dict[str, str]
    free_memory: int


@dataclass(frozen=True)
class NaivePod:
    """Rules are (topology key, app that is selected)."""

    memory: int
    app: str
    affinity: tuple[tuple[str, str], ...] = ()
    anti_affinity: tuple[tuple[str, str], ...] = ()
    spread: tuple[tuple[str, str], ...] = ()
    """With maxSkew 1."""


Placed = Sequence[tuple[NaivePod, NaiveNode]]


def has_plan(nodes: Sequence[NaiveNode], present: Placed, members: Sequence[NaivePod], need: int) -> bool:
    """`present`: pods that are there already."""
    return any(
        _can_be_reached(nodes, present, plan) for plan in _plans(nodes, list(present), members, need, [])
    )


def _plans(
    nodes: Sequence[NaiveNode],
    there: list[tuple[NaivePod, NaiveNode]],
    left: Sequence[NaivePod],
    need: int,
    plan: list[tuple[NaivePod, NaiveNode]],
) -> Iterator[list[tuple[NaivePod, NaiveNode]]]:
    """All that break no rule which holds in any order."""
    if not left:
        yield list(plan)
        return
    pod, *others = left
    for node in nodes:
        used = sum(other.memory for other, where in plan if where is node)
        if used + pod.memory > node.free_memory or not _apart(pod, node, there):
            continue
        for some in (there, plan):
            some.append((pod, node))
        yield from _plans(nodes, there, others, need - 1, plan)
        for some in (there, plan):
            some.pop()
    if len(others) >= need:
        yield from _plans(nodes, there, others, need, plan)


def _apart(pod: NaivePod, node: NaiveNode, there: Placed) -> bool:
    """Whether no anti-affinity, of the pod or of another, keeps it off."""
    for other, where in there:
        rules = [key for key, app in pod.anti_affinity if app == other.app]
        rules += [key for key, app in other.anti_affinity if app == pod.app]
        if any(where.domains[key] == node.domains[key] for key in rules):
            return False
    return True


def _can_be_reached(nodes: Sequence[NaiveNode], present: Placed, plan: Placed) -> bool:
    """Whether some of the plan's pods can be placed one after the other so that the rest passes at the
    end."""
    indices = range(len(plan))
    at_the_end = {
        i for i in indices if _passes(nodes, [*present, *(plan[j] for j in indices if j != i)], *plan[i])
    }
    if len(at_the_end) == len(plan):
        return True
    reached, frontier = {frozenset[int]()}, [frozenset[int]()]
    while frontier:
        before = frontier.pop()
        if at_the_end | before == set(indices):
            return True
        there = [*present, *(plan[j] for j in before)]
        for i in indices:
            if i not in before and before | {i} not in reached and _passes(nodes, there, *plan[i]):
                reached.add(before | {i})
                frontier.append(before | {i})
    return False


def _passes(nodes: Sequence[NaiveNode], there: Placed, pod: NaivePod, node: NaiveNode) -> bool:
    """Affinity and spreading; the rest is seen to."""
    return all(_near(rule, pod.affinity, there, pod, node) for rule in pod.affinity) and all(
        _even(nodes, rule, there, pod, node) for rule in pod.spread
    )


def _near(
    rule: tuple[str, str],
    rules: Sequence[tuple[str, str]],
    there: Placed,
    pod: NaivePod,
    node: NaiveNode,
) -> bool:
    key, app = rule
    if any(other.app == app and where.domains[key] == node.domains[key] for other, where in there):
        return True
    # The first of a series: nobody matches all its terms anywhere, and it does so itself.
    apps = {app for _, app in rules}
    return apps == {pod.app} and not any({other.app} == apps for other, _ in there)


def _even(
    nodes: Sequence[NaiveNode], rule: tuple[str, str], there: Placed, pod: NaivePod, node: NaiveNode
) -> bool:
    key, app = rule
    counts = {n.domains[key]: 0 for n in nodes}
    for other, where in there:
        counts[where.domains[key]] += other.app == app
    return counts[node.domains[key]] + (pod.app == app) - min(counts.values()) <= 1
