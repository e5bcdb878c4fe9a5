"""What plugins say of a pod before they look at nodes, put together."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.core.nodes import NodeView
from scheduler.core.plugin import PreFilterResult
from scheduler.core.pod_info import PodInfo
from scheduler.core.profile import Profile


@dataclass(frozen=True)
class PreFilterAnswer:
    """All plugins' PreFilter answers as one, and who said no or narrowed the nodes."""

    result: PreFilterResult
    rejected_by: frozenset[str]


def run_prefilters(profile: Profile, pod: PodInfo, nodes: NodeView | None = None) -> PreFilterAnswer:
    """All plugins' PreFilter answers merged, as RunPreFilterPlugins does
    (pkg/scheduler/framework/runtime/framework.go); without `nodes`, what holds for all pods of a kind."""
    names: frozenset[str] | None = None
    limiting: list[str] = []
    for plugin in profile.filters:
        result = plugin.prefilter(pod)
        if nodes is not None and (text := plugin.refuses(pod, nodes)) is not None:
            result = PreFilterResult(rejection=text)
        if result.rejection is not None:
            return PreFilterAnswer(result, frozenset([plugin.name]))
        if result.node_names is None:
            continue
        limiting.append(plugin.name)
        names = result.node_names if names is None else names & result.node_names
        if not names:
            which = (
                f"(s) [{' '.join(sorted(limiting))}] simultaneously" if limiting[1:] else f" {limiting[0]}"
            )
            text = f"node(s) didn't satisfy plugin{which}"
            return PreFilterAnswer(PreFilterResult(rejection=text), frozenset(limiting))
    return PreFilterAnswer(PreFilterResult(node_names=names), frozenset(limiting))
