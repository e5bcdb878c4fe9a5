"""Which plugins kube-scheduler would run at an extension point, and how a profile of ours says the same.

kube-scheduler merges a profile with its default plugins first (mergePluginSet in pkg/scheduler/apis/config/
v1/default_plugins.go), then unfolds `multiPoint` (expandMultiPointPlugins in pkg/scheduler/framework/
runtime/framework.go). Ours starts from a preset and takes away and adds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from scheduler.config import DisabledPlugin, EnabledPlugin, PluginSet
from scheduler.convert.source import KubePluginSet

DEFAULT_PLUGINS: Mapping[str, int | None] = {
    "SchedulingGates": None,
    "PrioritySort": None,
    "NodeName": None,
    "NodeUnschedulable": None,
    "TaintToleration": 3,
    "NodeAffinity": 2,
    "NodePorts": None,
    "NodeResourcesFit": 1,
    "VolumeRestrictions": None,
    "NodeVolumeLimits": None,
    "VolumeBinding": None,
    "VolumeZone": None,
    "PodTopologySpread": 2,
    "InterPodAffinity": 2,
    "DynamicResources": 2,
    "DefaultPreemption": None,
    "NodeResourcesBalancedAllocation": 1,
    "ImageLocality": 1,
    "DefaultBinder": None,
    "NodeDeclaredFeatures": None,
}
"""Name → weight, in order: getDefaultPlugins with the gates that are on by default."""

Weights = dict[str, int]
"""Plugin name → weight, in order."""


def multi_point(given: KubePluginSet) -> Weights:
    """What `multiPoint` comes to once it is merged with the defaults."""
    disabled = {plugin.name for plugin in given.disabled}
    custom = {plugin.name: plugin.weight for plugin in given.enabled}
    kept = {} if "*" in disabled else {n: w for n, w in DEFAULT_PLUGINS.items() if n not in disabled}
    merged = {name: custom.get(name, weight) for name, weight in kept.items()} | {
        name: weight for name, weight in custom.items() if name not in kept
    }
    return {name: weight or 1 for name, weight in merged.items()}


def at_point(given: KubePluginSet, everywhere: Weights, implements: Callable[[str], bool]) -> Weights:
    """What runs at one extension point: those given there that `multiPoint` has as well, then the others
    of `multiPoint`, then the others given there."""
    disabled = {plugin.name for plugin in given.disabled}
    own = {plugin.name: plugin.weight or 1 for plugin in given.enabled}
    unfolded = {
        name: weight
        for name, weight in everywhere.items()
        if "*" not in disabled and name not in disabled and implements(name)
    }
    overriding = {name: weight for name, weight in own.items() if name in unfolded}
    return overriding | {n: w for n, w in unfolded.items() if n not in own} | own


def changes(preset: Mapping[str, int], wanted: Weights, *, ordered: bool) -> PluginSet:
    """How to get from a preset's plugins to these; `ordered`: in this order, too."""
    kept = [name for name in preset if name in wanted]
    added = [name for name in wanted if name not in preset]
    if not kept or (ordered and list(wanted) != [*kept, *added]):
        return PluginSet(
            enabled=tuple(_enabled(name, wanted[name]) for name in wanted),
            disabled=(DisabledPlugin(name="*"),),
        )
    reweighed = [name for name in kept if preset[name] != wanted[name]]
    return PluginSet(
        enabled=tuple(_enabled(name, wanted[name]) for name in (*reweighed, *added)),
        disabled=tuple(DisabledPlugin(name=name) for name in preset if name not in wanted),
    )


def repeated(given: KubePluginSet) -> Collection[str]:
    """Plugins that are enabled twice, which kube-scheduler refuses."""
    names = [plugin.name for plugin in given.enabled]
    return sorted({name for name in names if names.count(name) > 1})


def _enabled(name: str, weight: int) -> EnabledPlugin:
    return EnabledPlugin(name=name, weight=None if weight == 1 else weight)
