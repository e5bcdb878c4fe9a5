"""The table of plugins: name → class. To add one: write a file here, add a line, give it a test.

Plugins that live in other packages are found through the entry-point group `wholepod.plugins`
(entry name = plugin name, object = the class); see docs/plugins.md.
"""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from scheduler.core.plugin import Plugin
from scheduler.plugins.default_preemption import DefaultPreemption
from scheduler.plugins.image_locality import ImageLocality
from scheduler.plugins.inter_pod_affinity import InterPodAffinity
from scheduler.plugins.memory_fit import MemoryFit
from scheduler.plugins.node_affinity import NodeAffinity
from scheduler.plugins.node_declared_features import NodeDeclaredFeatures
from scheduler.plugins.node_name import NodeName
from scheduler.plugins.node_ports import NodePorts
from scheduler.plugins.node_resources import NodeResourcesBalancedAllocation, NodeResourcesFit
from scheduler.plugins.node_unschedulable import NodeUnschedulable
from scheduler.plugins.node_volume_limits import NodeVolumeLimits
from scheduler.plugins.pod_topology_spread import PodTopologySpread
from scheduler.plugins.taint_toleration import TaintToleration
from scheduler.plugins.unsupported_rules import UnsupportedRules
from scheduler.plugins.volume_binding import VolumeBinding
from scheduler.plugins.volume_restrictions import VolumeRestrictions
from scheduler.plugins.volume_zone import VolumeZone

ENTRY_POINT_GROUP = "wholepod.plugins"

BUILT_IN: Mapping[str, type[Plugin]] = {
    plugin.name: plugin
    for plugin in (
        UnsupportedRules,
        NodeName,
        NodeUnschedulable,
        TaintToleration,
        NodeAffinity,
        NodePorts,
        NodeResourcesFit,
        VolumeRestrictions,
        NodeVolumeLimits,
        VolumeBinding,
        VolumeZone,
        PodTopologySpread,
        InterPodAffinity,
        NodeResourcesBalancedAllocation,
        ImageLocality,
        NodeDeclaredFeatures,
        MemoryFit,
        DefaultPreemption,
    )
}

FILTERS = (
    "UnsupportedRules",
    "NodeName",
    "NodeUnschedulable",
    "TaintToleration",
    "NodeAffinity",
    "NodePorts",
    "NodeResourcesFit",
    "VolumeRestrictions",
    "NodeVolumeLimits",
    "VolumeBinding",
    "VolumeZone",
    "PodTopologySpread",
    "InterPodAffinity",
    "NodeDeclaredFeatures",
)
"""The order in which both built-in profiles filter (apis/config/v1/default_plugins.go)."""

POST_FILTERS = ("DefaultPreemption",)
"""What both built-in profiles try when no node fits."""

DEFAULT_SCORES: Mapping[str, Mapping[str, int]] = {
    "kube": {
        "TaintToleration": 3,
        "NodeAffinity": 2,
        "NodeResourcesFit": 1,
        "VolumeBinding": 1,
        "PodTopologySpread": 2,
        "InterPodAffinity": 2,
        "NodeResourcesBalancedAllocation": 1,
        "ImageLocality": 1,
    },
    "memory-fit": {
        "TaintToleration": 30,
        "NodeAffinity": 20,
        "PodTopologySpread": 20,
        "InterPodAffinity": 20,
        "MemoryFit": 10,
        "VolumeBinding": 1,
        "ImageLocality": 1,
    },
}
"""Built-in profile → score plugin → weight. `kube`: kube-scheduler's. `memory-fit`: what people wrote
down, on nodes and in pods, weighs two to three times as much as fit, as in kube-scheduler; where the
images are, and where more storage is left, only tips the balance between nodes that fit nearly as well."""


DEFAULT_ARGUMENTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "kube": {},
    "memory-fit": {"PodTopologySpread": {"defaultingType": "List"}},
}
"""Built-in profile → plugin → arguments that differ from the plugin's own defaults. `memory-fit` spreads
nobody who has not asked for it: with kube-scheduler's defaults the pods of each Deployment would rather
be apart than fit well."""


class PluginError(ValueError):
    """A plugin that does not exist, can't be loaded or rejects its arguments; the text says which."""


def load(name: str) -> type[Plugin]:
    """The class behind a plugin's name, built in or from another package."""
    built_in = BUILT_IN.get(name)
    if built_in is not None:
        return built_in
    found = entry_points(group=ENTRY_POINT_GROUP)
    matching = {entry.value: entry for entry in found if entry.name == name}
    if not matching:
        known = ", ".join(sorted({*BUILT_IN, *(entry.name for entry in found)}))
        raise PluginError(f"there is no plugin {name!r}; known plugins: {known}")
    if len(matching) > 1:
        raise PluginError(f"plugin {name!r} is offered by {' and '.join(sorted(matching))}; uninstall one")
    [(value, entry)] = matching.items()
    try:
        plugin = entry.load()
    except Exception as error:  # whatever a module of somebody else's does when it is imported
        raise PluginError(
            f"plugin {name!r}: entry point {value!r} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(plugin, type) and issubclass(plugin, Plugin) and getattr(plugin, "name", "") == name):
        raise PluginError(f"entry point {value!r} is not a Plugin subclass with name = {name!r}")
    return plugin
