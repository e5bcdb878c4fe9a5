"""From a profile's configuration to its plugins: a preset, with plugins taken away and added."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from scheduler.api import Pod
from scheduler.config import PluginSet, ProfileConfig
from scheduler.core.gangs.gang import GangPolicy, Strategy
from scheduler.core.plugin import FilterPlugin, Plugin, PostFilterPlugin, ScorePlugin
from scheduler.core.pod_info import PodInfo
from scheduler.core.profile import Profile, WeightedScore
from scheduler.plugins import (
    DEFAULT_ARGUMENTS,
    DEFAULT_SCORES,
    FILTERS,
    POST_FILTERS,
    PluginError,
    load,
)

P = TypeVar("P", bound=Plugin)
MAX_WEIGHT = 1_000_000
"""Far more than anybody needs, and far from where 64-bit sums end."""
_ANY_POD = PodInfo(Pod())


def build_profile(config: ProfileConfig) -> Profile:
    """Raises PluginError, naming the profile, for plugins or arguments that make no sense."""
    try:
        return _build(config)
    except PluginError as error:
        raise PluginError(f"profile {config.scheduler_name}: {error}") from error


def _build(config: ProfileConfig) -> Profile:
    filters = _changed(dict.fromkeys(FILTERS, 1), config.plugins.filter)
    scores = _changed(DEFAULT_SCORES[config.effective_preset], config.plugins.score)
    post_filters = _changed(dict.fromkeys(POST_FILTERS, 1), config.plugins.post_filter)
    args: dict[str, Mapping[str, Any]] = {}
    for entry in config.plugin_config:
        if entry.name in args:
            raise PluginError(f"pluginConfig names {entry.name} twice")
        if entry.name not in {**filters, **scores, **post_filters}:
            raise PluginError(f"pluginConfig names {entry.name}, which is not enabled in this profile")
        args[entry.name] = entry.args
    for name, defaults in DEFAULT_ARGUMENTS[config.effective_preset].items():
        args[name] = {**defaults, **args.get(name, {})}
    # A plugin that both filters and scores is one instance.
    instances = {name: _instance(name, args.get(name)) for name in {**filters, **scores, **post_filters}}
    return Profile(
        scheduler_name=config.scheduler_name,
        filters=[_as(instances[name], FilterPlugin, "filter") for name in filters],
        scores=[
            WeightedScore(_as(instances[name], ScorePlugin, "score"), weight)
            for name, weight in scores.items()
        ],
        post_filters=[_as(instances[name], PostFilterPlugin, "make room on") for name in post_filters],
        gangs=_policy(config),
    )


def _policy(config: ProfileConfig) -> GangPolicy:
    gangs = config.gangs
    return GangPolicy(
        profile=config.scheduler_name,
        strategies=tuple(Strategy(name) for name in gangs.strategies),
        default_strategy=Strategy(gangs.default_strategy),
        max_hold_timeout_s=gangs.max_hold_timeout_s,
        max_held_by_namespace=gangs.max_held_fraction.namespace,
        max_held=gangs.max_held_fraction.cluster,
        starvation_after_s=gangs.starvation_after_s,
        compensation_deadline_s=gangs.compensation_deadline_s,
        largest_first=config.effective_preset != "kube",
    )


def _changed(preset: Mapping[str, int], changes: PluginSet) -> dict[str, int]:
    """Plugin name → weight, in order."""
    disabled = {plugin.name for plugin in changes.disabled}
    unknown = sorted(disabled - {"*", *preset})
    if unknown:
        raise PluginError(f"cannot disable {', '.join(unknown)}: the preset has {', '.join(preset)}")
    enabled = [plugin.name for plugin in changes.enabled]
    repeated = sorted({name for name in enabled if enabled.count(name) > 1})
    if repeated:
        raise PluginError(f"{', '.join(repeated)} is enabled twice")
    result = {} if "*" in disabled else {n: w for n, w in preset.items() if n not in disabled}
    for plugin in changes.enabled:
        weight = 1 if plugin.weight is None else plugin.weight
        if not 1 <= weight <= MAX_WEIGHT:
            raise PluginError(f"weight of {plugin.name} must be 1 to {MAX_WEIGHT}, got {weight}")
        result[plugin.name] = weight
    return result


def _instance(name: str, args: Mapping[str, Any] | None) -> Plugin:
    cls = load(name)
    try:
        plugin = cls(args)
    except (ValueError, TypeError) as error:
        raise PluginError(f"plugin {name} rejects its arguments: {error}") from error
    if not hasattr(plugin, "reads"):
        raise PluginError(f"plugin {name} does not say what it `reads` of a pod")
    unknown = [field for field in plugin.reads if not hasattr(_ANY_POD, field)]
    if unknown:
        raise PluginError(f"plugin {name} reads {', '.join(unknown)}, which a pod does not have")
    return plugin


def _as(plugin: Plugin, kind: type[P], verb: str) -> P:
    if not isinstance(plugin, kind):
        raise PluginError(f"plugin {plugin.name} does not {verb} nodes")
    return plugin
