"""From kube-scheduler's configuration to ours: what has an equivalent is taken over, what has none is named.

The outcome is made to behave alike, not to look alike: plugin sets are worked out as kube-scheduler does
it and said anew as changes to preset `kube`. It is read back by our own loader before it is given out,
so that a conversion that succeeds can be run.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from operator import eq
from typing import Any, NamedTuple

import msgspec
import yaml

from scheduler import config
from scheduler.config import Configuration, ConfigurationError
from scheduler.convert import plugin_sets
from scheduler.convert.plugin_sets import DEFAULT_PLUGINS, Weights
from scheduler.convert.source import KubePlugins, KubePluginSet, KubeProfile, Source, read
from scheduler.core.plugin import FilterPlugin, Plugin, PostFilterPlugin, ScorePlugin
from scheduler.plugins import DEFAULT_SCORES, FILTERS, POST_FILTERS, PluginError, load
from scheduler.plugins.profiles import build_profile

Json = dict[str, Any]
Path = tuple[str | int, ...]

ALL_NODES = "all nodes are looked at, always"
LEASE = "kube-scheduler"
"""SchedulerDefaultLockObjectName: kept, so that the two never run at once."""
NO_LIMIT_QPS, NO_LIMIT_BURST = 10_000.0, 20_000
POINTS: Mapping[str, type[Plugin]] = {
    "filter": FilterPlugin,
    "postFilter": PostFilterPlugin,
    "score": ScorePlugin,
}
"""Extension points that have plugins here."""
FIXED = {
    "preEnqueue": ("SchedulingGates", "pods with scheduling gates always wait"),
    "queueSort": ("PrioritySort", "pods are always tried by priority, then by age"),
    "bind": ("DefaultBinder", "pods are always bound through the API server"),
}
"""Extension point → the only plugin of kube-scheduler's that is done there, whatever the file says."""
FOLLOWING = {"preFilter": "filter", "preScore": "score", "reserve": "filter", "preBind": "filter"}
"""Extension points whose work is done by the plugins of another."""
ABSENT = ("permit", "postBind", "placementGenerate", "placementScore", "podGroupPostFilter")
PERMANENT = ("UnsupportedRules",)
"""Filters of ours that kube-scheduler has no name for."""


class Note(NamedTuple):
    """Something that has no equivalent."""

    where: str
    """`file:line`."""
    field: str
    text: str

    @property
    def line(self) -> int:
        return int(self.where.rpartition(":")[2])

    def __str__(self) -> str:
        return f"{self.where}: {self.field}: {self.text}"


class Conversion(NamedTuple):
    document: Json
    """Of our kind, without what is at its default."""
    notes: list[Note]


def convert(text: str, *, source: str) -> Conversion:
    """Raises ConfigurationError for a file that kube-scheduler would refuse, too."""
    converter = _Converter(read(text, source))
    document = converter.document()
    for i, profile in enumerate(config.parse(yaml.safe_dump(document), source=source).profiles):
        try:
            build_profile(profile)
        except PluginError as error:
            raise ConfigurationError(f"{converter.where('profiles', i)}: {error}") from error
    return Conversion(document, sorted(converter.notes, key=lambda note: note.line))


class _Converter:
    def __init__(self, source: Source) -> None:
        self._kube, self.where = source.configuration, source.where
        self.notes: list[Note] = []

    def document(self) -> Json:
        kube = self._kube
        document: Json = {"apiVersion": config.API_VERSION, "kind": config.KIND}
        document["profiles"] = [self._profile(i, profile) for i, profile in enumerate(kube.profiles)]
        parts = {
            "leaderElection": self._leader_election(),
            "clientConnection": self._client_connection(),
            "podInitialBackoffSeconds": kube.pod_initial_backoff_seconds,
            "podMaxBackoffSeconds": kube.pod_max_backoff_seconds,
        }
        self._note_the_rest()
        return document | _differing(parts, msgspec.to_builtins(Configuration()))

    # ---- profiles

    def _profile(self, i: int, profile: KubeProfile) -> Json:
        name = profile.scheduler_name
        if not name and len(self._kube.profiles) == 1:
            name = "default-scheduler"
        if not name:
            where = self.where("profiles", i)
            raise ConfigurationError(f"{where}: profiles[{i}]: several profiles need a schedulerName each")
        at: Path = ("profiles", i)
        if profile.percentage_of_nodes_to_score not in (None, 100):
            self._note((*at, "percentageOfNodesToScore"), ALL_NODES)
        ours = self._plugins((*at, "plugins"), profile.plugins)
        changes = {
            "filter": plugin_sets.changes(dict.fromkeys(FILTERS, 1), ours["filter"], ordered=True),
            "postFilter": plugin_sets.changes(
                dict.fromkeys(POST_FILTERS, 1), ours["postFilter"], ordered=True
            ),
            "score": plugin_sets.changes(DEFAULT_SCORES["kube"], ours["score"], ordered=False),
        }
        plugins = {point: msgspec.to_builtins(each) for point, each in changes.items()}
        used = {name for names in ours.values() for name in names}
        return {
            "schedulerName": name,
            "preset": "kube",
            **_pruned({"plugins": plugins}),
            **_pruned({"pluginConfig": self._plugin_config(at, profile, used)}),
        }

    def _plugins(self, at: Path, given: KubePlugins) -> dict[str, Weights]:
        """What the profile runs, as far as Wholepod has it, by extension point."""
        sets: dict[str, KubePluginSet] = dict(
            zip(KubePlugins.__struct_encode_fields__, msgspec.structs.astuple(given), strict=True)
        )
        for point, each in sets.items():
            for name in plugin_sets.repeated(each):
                path = (*at, point, "enabled")
                raise ConfigurationError(f"{self.where(*path)}: {_dotted(path)}: {name} is there twice")
        everywhere = plugin_sets.multi_point(given.multi_point)
        ours = {}
        for point, kind in POINTS.items():
            running = plugin_sets.at_point(sets[point], everywhere, partial(_is, kind))
            ours[point] = {name: weight for name, weight in running.items() if _is(kind, name)}
        for point in ("multiPoint", *POINTS):
            for j, plugin in enumerate(sets[point].enabled):
                if _class(plugin.name) is None and plugin.name not in DEFAULT_PLUGINS:
                    self._note((*at, point, "enabled", j), _no_plugin(plugin.name))
        self._note_other_points(at, sets, everywhere, ours)
        ours["filter"] = dict.fromkeys((*PERMANENT, *ours["filter"]), 1)
        return ours

    def _note_other_points(
        self, at: Path, sets: dict[str, KubePluginSet], everywhere: Weights, ours: dict[str, Weights]
    ) -> None:
        """Names what is lost at the extension points that have no plugins here."""
        for point, (name, text) in FIXED.items():
            for j, plugin in enumerate(sets[point].enabled):
                if plugin.name != name:
                    self._note((*at, point, "enabled", j), f"{plugin.name} has no equivalent: {text}")
            if name not in plugin_sets.at_point(sets[point], everywhere, partial(eq, name)):
                step = point if sets[point].disabled else "multiPoint"
                self._note((*at, step, "disabled"), f"{name} can't be disabled: {text}")
        for point, other in FOLLOWING.items():
            there, used = sets[point], ours[other]
            lost = [p.name for p in there.enabled if p.name not in used]
            lost += [p.name for p in there.disabled if p.name in used or (p.name == "*" and used)]
            for name in lost:
                self._note((*at, point), f"{name}: what a plugin does there comes and goes with its {other}")
        for point in ABSENT:
            if sets[point] != KubePluginSet():
                self._note((*at, point), "there is no such extension point")

    def _plugin_config(self, at: Path, profile: KubeProfile, used: set[str]) -> list[Json]:
        found = []
        for j, entry in enumerate(profile.plugin_config):
            if entry.name in used:
                found.append({"name": entry.name, **({"args": entry.args} if entry.args else {})})
            elif _class(entry.name) is None:
                self._note((*at, "pluginConfig", j), _no_plugin(entry.name))
            else:
                self._note((*at, "pluginConfig", j), f"{entry.name} is not enabled in this profile")
        return found

    # ---- the rest

    def _leader_election(self) -> Json:
        given = self._kube.leader_election
        if given.resource_lock not in (None, "", "leases"):
            self._note(("leaderElection", "resourceLock"), "the lock is always a Lease")
        durations = {
            "leaseDuration": given.lease_duration,
            "renewDeadline": given.renew_deadline,
            "retryPeriod": given.retry_period,
        }
        return {
            "leaderElect": given.leader_elect,
            **{name: self._duration_s(name, text) for name, text in durations.items()},
            "resourceName": given.resource_name or LEASE,
            "resourceNamespace": given.resource_namespace or None,
        }

    def _duration_s(self, field: str, text: str | None) -> float | None:
        try:
            return (config.parse_duration_s(text) if text and text != "0" else 0) or None  # 0: the default
        except ConfigurationError as error:
            path = ("leaderElection", field)
            raise ConfigurationError(f"{self.where(*path)}: {_dotted(path)}: {error}") from error

    def _client_connection(self) -> Json:
        given = self._kube.client_connection
        for field, value in (
            ("acceptContentTypes", given.accept_content_types),
            ("contentType", given.content_type),
        ):
            if value not in (None, "", "application/json"):
                self._note(("clientConnection", field), "the API server is always asked for JSON")
        qps, burst = given.qps or None, given.burst or None
        if qps is not None and qps < 0:
            text = f"no limit can't be said: {NO_LIMIT_QPS:.0f} writes a second instead"
            self._note(("clientConnection", "qps"), text)
            qps, burst = NO_LIMIT_QPS, NO_LIMIT_BURST
        return {"kubeconfig": given.kubeconfig or None, "qps": qps, "burst": burst}

    def _note_the_rest(self) -> None:
        kube = self._kube
        if kube.parallelism is not None:
            self._note(("parallelism",), "decisions are made in one thread, on all nodes at once")
        if kube.percentage_of_nodes_to_score not in (None, 100):
            self._note(("percentageOfNodesToScore",), ALL_NODES)
        for field, value in (
            ("healthzBindAddress", kube.healthz_bind_address),
            ("metricsBindAddress", kube.metrics_bind_address),
        ):
            if value is not None:
                self._note((field,), "not in kube-scheduler's v1 either; both are served at bindAddress")
        for field, wanted in (
            ("enableProfiling", kube.enable_profiling),
            ("enableContentionProfiling", kube.enable_contention_profiling),
        ):
            if wanted:
                self._note((field,), "there are no profiling endpoints")
        if kube.delay_cache_until_active:
            self._note(("delayCacheUntilActive",), "a process that waits for the lease follows the cluster")
        for i, extender in enumerate(kube.extenders):
            url = extender.get("urlPrefix", "")
            self._note(("extenders", i), f"no extender is called, and so not {url}")

    def _note(self, path: Path, text: str) -> None:
        self.notes.append(Note(self.where(*path), _dotted(path), text))


def _class(name: str) -> type[Plugin] | None:
    """Of a plugin that is built in or installed."""
    try:
        return load(name)
    except PluginError:
        return None


def _is(kind: type[Plugin], name: str) -> bool:
    cls = _class(name)
    return cls is not None and issubclass(cls, kind)


def _no_plugin(name: str) -> str:
    if name in DEFAULT_PLUGINS:
        return f"{name} takes no arguments here"
    return f"there is no plugin {name}: write it for Wholepod and install it (docs/plugins.md)"


def _dotted(path: Path) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def _pruned(value: Any) -> Any:
    """Without what is None or empty."""
    if isinstance(value, list | tuple):
        return [_pruned(item) for item in value]
    if not isinstance(value, dict):
        return value
    pruned = {key: item if key == "args" else _pruned(item) for key, item in value.items()}
    return {key: item for key, item in pruned.items() if item not in (None, [], {})}


def _differing(parts: Json, defaults: Json) -> Json:
    """Those parts that are not at their defaults; durations in Go's notation."""
    found: Json = {}
    for name, value in parts.items():
        if isinstance(value, dict):
            value = _differing(value, defaults[name])
        if value not in (None, {}, defaults[name]):
            found[name] = f"{value:g}s" if name in config.DURATION_FIELDS else value
    return found
