"""From configuration to plugins: presets, changes to them, and what makes no sense."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest

import scheduler
from scheduler import plugins
from scheduler.core.plugin import FilterPlugin
from scheduler.plugins import BUILT_IN, FILTERS, PluginError
from scheduler.plugins.memory_fit import MemoryFit
from tests.builders import make_profile


def names(**fields: Any) -> tuple[list[str], dict[str, int]]:
    profile = make_profile(**fields)
    return [f.name for f in profile.filters], {s.plugin.name: s.weight for s in profile.scores}


def changes(point: str, *, on: list[Any] | None = None, off: list[str] | None = None) -> dict[str, Any]:
    enabled = [plugin if isinstance(plugin, dict) else {"name": plugin} for plugin in on or []]
    return {point: {"enabled": enabled, "disabled": [{"name": name} for name in off or []]}}


KUBE_SCORES = {
    "TaintToleration": 3,
    "NodeAffinity": 2,
    "NodeResourcesFit": 1,
    "VolumeBinding": 1,
    "PodTopologySpread": 2,
    "InterPodAffinity": 2,
    "NodeResourcesBalancedAllocation": 1,
    "ImageLocality": 1,
}
SCORES = {
    "TaintToleration": 30,
    "NodeAffinity": 20,
    "PodTopologySpread": 20,
    "InterPodAffinity": 20,
    "MemoryFit": 10,
    "VolumeBinding": 1,
    "ImageLocality": 1,
}


@pytest.mark.parametrize(
    ("preset", "scores"),
    [
        ("kube", KUBE_SCORES),
        ("memory-fit", SCORES),
    ],
)
def test_presets(preset: str, scores: dict[str, int]) -> None:
    assert names(preset=preset) == (list(FILTERS), scores)


@pytest.mark.parametrize(
    ("point", "change", "expected"),
    [
        ("score", {"off": ["*"]}, {}),
        ("score", {"off": ["MemoryFit"]}, {name: w for name, w in SCORES.items() if name != "MemoryFit"}),
        ("score", {"on": ["NodeResourcesFit"]}, {**SCORES, "NodeResourcesFit": 1}),
        ("score", {"on": [{"name": "MemoryFit", "weight": 7}]}, {**SCORES, "MemoryFit": 7}),
        ("score", {"off": ["*"], "on": ["NodeResourcesFit"]}, {"NodeResourcesFit": 1}),
        ("filter", {"off": ["NodePorts"]}, [n for n in FILTERS if n != "NodePorts"]),
        ("filter", {"off": ["*"], "on": ["NodeResourcesFit", "NodeName"]}, ["NodeResourcesFit", "NodeName"]),
        (
            "filter",
            {"off": ["NodeName"], "on": ["NodeName"]},
            [*(n for n in FILTERS if n != "NodeName"), "NodeName"],
        ),
    ],
)
def test_changes_to_a_preset(point: str, change: dict[str, Any], expected: Any) -> None:
    filters, scores = names(plugins=changes(point, **change))
    assert (filters if point == "filter" else scores) == expected


def test_arguments_reach_the_plugin() -> None:
    profile = make_profile(pluginConfig=[{"name": "MemoryFit", "args": {"objective": "spread"}}])
    [plugin] = [s.plugin for s in profile.scores if s.plugin.name == "MemoryFit"]
    assert isinstance(plugin, MemoryFit)
    assert plugin.objective == "spread"


def test_a_plugin_that_filters_and_scores_is_one_instance() -> None:
    profile = make_profile(preset="kube")
    [scorer] = [s.plugin for s in profile.scores if s.plugin.name == "NodeResourcesFit"]
    assert scorer in list[object](profile.filters)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"plugins": changes("score", on=["Nosuch"])},
            "there is no plugin 'Nosuch'; known plugins: DefaultPreemption, ImageLocality, ",
        ),
        (
            {"plugins": changes("score", off=["Nosuch"])},
            "cannot disable Nosuch: the preset has TaintToleration, NodeAff",
        ),
        ({"plugins": changes("score", on=["NodeName"])}, "plugin NodeName does not score nodes"),
        ({"plugins": changes("filter", on=["MemoryFit"])}, "plugin MemoryFit does not filter nodes"),
        (
            {"plugins": changes("score", on=[{"name": "MemoryFit", "weight": 0}])},
            "weight of MemoryFit must be 1 to 1000000, got 0",
        ),
        ({"plugins": changes("score", on=["MemoryFit", "MemoryFit"])}, "MemoryFit is enabled twice"),
        (
            {"pluginConfig": [{"name": "MemoryFit", "args": {"objective": "best"}}]},
            "plugin MemoryFit rejects its arguments: objective must be one of",
        ),
        (
            {"pluginConfig": [{"name": "NodeName", "args": {"strict": True}}]},
            "plugin NodeName rejects its arguments: plugin NodeName takes no arguments, got strict",
        ),
        (
            {"pluginConfig": [{"name": "InterPodAffinity", "args": {"hardPodAffinityWeight": 101}}]},
            "plugin InterPodAffinity rejects its arguments: hardPodAffinityWeight: must be 0 to 100, got 101",
        ),
        (
            {"pluginConfig": [{"name": "PodTopologySpread", "args": {"defaultingType": "Some"}}]},
            "plugin PodTopologySpread rejects its arguments: defaultingType: invalid enum value 'Some'",
        ),
        (
            {"pluginConfig": [{"name": "MemoryFit"}, {"name": "MemoryFit"}]},
            "pluginConfig names MemoryFit twice",
        ),
        (
            {"pluginConfig": [{"name": "NodeResourcesBalancedAllocation"}]},
            "pluginConfig names NodeResourcesBalancedAllocation, which is not enabled in this profile",
        ),
    ],
)
def test_what_makes_no_sense_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PluginError) as caught:
        make_profile("mine", **fields)
    assert str(caught.value).startswith(f"profile mine: {message}")


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_plugin_says_what_it_reads(name: str) -> None:
    plugin = BUILT_IN[name]
    assert plugin.name == name
    assert plugin.reads, "all of ours look at the pod"
    assert isinstance(plugin.reads_usage, bool)


# ---- plugins of others


class Good(FilterPlugin):
    name = "Good"
    reads = ("labels",)


class Misnamed(FilterPlugin):
    name = "Other"
    reads = ()


class ReadsTooMuch(FilterPlugin):
    name = "ReadsTooMuch"
    reads = ("labels", "shoe_size")


class ReadsNothingSaid(FilterPlugin):
    name = "ReadsNothingSaid"


class Picky(FilterPlugin):
    name = "Picky"
    reads = ()

    def __init__(self, args: Mapping[str, Any] | None = None) -> None:
        raise TypeError("colour must be a text")


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("Good", "Good", None),
        ("Misnamed", "Misnamed", "is not a Plugin subclass with name = 'Misnamed'"),
        ("Good", "make_profile", "is not a Plugin subclass with name = 'Good'"),
        ("Good", "Nosuch", "cannot be loaded: AttributeError: module"),
        ("ReadsTooMuch", "ReadsTooMuch", "plugin ReadsTooMuch reads shoe_size, which a pod does not have"),
        ("ReadsNothingSaid", "ReadsNothingSaid", "plugin ReadsNothingSaid does not say what it `reads`"),
        ("Picky", "Picky", "plugin Picky rejects its arguments: colour must be a text"),
    ],
)
def test_entry_points(name: str, target: str, message: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint(name, f"{__name__}:{target}", plugins.ENTRY_POINT_GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: EntryPoints([entry]).select(group=group))
    enabled = changes("filter", off=["*"], on=[name])
    if message is None:
        assert [type(f) for f in make_profile(plugins=enabled).filters] == [Good]
        return
    with pytest.raises(PluginError) as caught:
        make_profile(plugins=enabled)
    assert message in str(caught.value)


def test_two_packages_with_the_same_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        EntryPoint("Good", f"{module}:Good", plugins.ENTRY_POINT_GROUP) for module in (__name__, "other")
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: EntryPoints(entries).select(group=group))
    with pytest.raises(
        PluginError, match=r"offered by other:Good and tests\.unit\.test_profiles:Good; uninstall one"
    ):
        make_profile(plugins=changes("filter", on=["Good"]))


# ---- the public surface


def test_the_plugin_api_is_what_we_promise() -> None:
    assert scheduler.__all__ == [
        "MAX_NODE_SCORE",
        "FilterPlugin",
        "FilterResult",
        "NodeView",
        "Plugin",
        "PodInfo",
        "PreFilterResult",
        "ScorePlugin",
        "Wake",
        "__version__",
        "passes",
        "rejects",
    ]
    assert all(hasattr(scheduler, name) for name in scheduler.__all__)


@pytest.mark.parametrize(
    ("of", "members"),
    [
        ("Plugin", "context name reads reads_amounts_only reads_usage row_local watches"),
        (
            "FilterPlugin",
            "applies applies_in context cured_by_pods filter follow_filter may_help minds name plan "
            "prefilter reads reads_amounts_only reads_usage reasons refuses row_local wakes_on watches",
        ),
        (
            "ScorePlugin",
            "context follow_rank full_resolution name normalize normalized prefers rank rates reads "
            "reads_amounts_only reads_usage row_local score version watches",
        ),
        ("FilterResult", "count index reason_bits unresolvable"),
        ("PreFilterResult", "count index node_names rejection"),
        (
            "Wake",
            "ANY ASSIGNED_POD_ADDED ASSIGNED_POD_ANY ASSIGNED_POD_CHANGED ASSIGNED_POD_REMOVED CSI_DRIVER "
            "CSI_NODE NAMESPACE_LABELS NODE_ADD NODE_ALLOCATABLE NODE_ANY NODE_FEATURES NODE_LABELS "
            "NODE_REMOVED NODE_SCHEDULABLE NODE_TAINTS NOTHING OBJECT_ANY STORAGE_ANY STORAGE_CAPACITY "
            "STORAGE_CLASS VOLUME VOLUME_ATTACHMENT VOLUME_CLAIM WORKLOAD name value",
        ),
        (
            "NodeView",
            "allocatable capacity carrying cluster concerning count declared_features image image_generation "
            "label matching mix named names namespace_labels "
            "nonzero_requested object_version pod_count pod_limit ports requested resources row_of taints "
            "unschedulable volumes",
        ),
        (
            "PodInfo",
            "affinity_rules annotations controller gated has_volume_rules host_ports images labels name "
            "namespace node_name node_selector nominated_node nonzero_requests owned_by_daemon_set pod "
            "preempted preempts preferred_node_affinity priority requests required_features "
            "required_node_affinity rules scored_requests signature spread_rules started "
            "terminating tolerations uid uid_hash unsupported_rules usage volumes",
        ),
    ],
)
def test_members_of_the_plugin_api(of: str, members: str) -> None:
    cls = getattr(scheduler, of)
    own = {name for base in cls.__mro__ for name in (*vars(base), *getattr(base, "__annotations__", {}))}
    public = sorted(name for name in own if not name.startswith("_"))
    assert public == members.split()
