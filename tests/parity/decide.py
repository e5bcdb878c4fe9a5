"""Decides a document as Wholepod would, in the oracle's output shape.

`python -m tests.parity.decide [--profile kube]` reads the oracle's documents from standard input and
writes one line for each. It uses the scheduler's own node table, profiles and cycle; only the
reporting is done here. What kube-scheduler has and Wholepod has not (yet) is left out of the answer
and named on standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, TextIO

import click
import msgspec
import numpy as np
from numpy.typing import NDArray

from scheduler.api_objects import ClusterObject
from scheduler.config import ProfileConfig
from scheduler.core.budgets import Budgets
from scheduler.core.cycle import Cycle
from scheduler.core.mix import ShapeMix
from scheduler.core.nodes import CPU, MEMORY, NodeView
from scheduler.core.plugin import (
    FilterPlugin,
    FilterResult,
    Plugin,
    PostFilterResult,
    Ranking,
    ScorePlugin,
    Scores,
)
from scheduler.core.pod_info import PodInfo
from scheduler.core.post_filters import PostFilters
from scheduler.core.prefilter import run_prefilters
from scheduler.core.profile import Profile
from scheduler.core.requests import nonzero_requests, pod_requests, pod_requests_on_node, scored_requests
from scheduler.core.state import ClusterState
from scheduler.plugins.node_resources import NodeResourcesFit
from scheduler.plugins.profiles import build_profile
from tests.parity.admission import (
    Json,
    admit_namespaces,
    admit_node,
    admit_objects,
    admit_pod,
    admit_pods,
)

PRESETS = ("kube", "memory-fit")
KUBE_PLUGINS = (
    *("NodeName", "NodeUnschedulable", "TaintToleration", "NodeAffinity", "NodePorts", "NodeResourcesFit"),
    *("VolumeRestrictions", "NodeVolumeLimits", "VolumeBinding", "VolumeZone", "PodTopologySpread"),
    *("InterPodAffinity", "DynamicResources", "DefaultPreemption", "NodeResourcesBalancedAllocation"),
    *("ImageLocality", "NodeDeclaredFeatures"),
)
"""kube-scheduler's default plugins that filter, score or preempt (apis/config/v1/default_plugins.go)."""
UNRESOLVABLE = "UnschedulableAndUnresolvable"
EXCLUDED = {"code": UNRESOLVABLE, "reasons": ["excluded by PreFilterResult"]}
_SUCCESS: Json = {"code": "Success"}


class Case:
    """A document brought into the scheduler's state, with the pod that wants a place."""

    def __init__(self, document: Json, preset: str, *, shuffle: Random | None = None) -> None:
        """With `shuffle`, nodes and pods arrive in random order and the pod is asked for meanwhile,
        so that the answer rests on caches that were patched rather than freshly filled."""
        admitted = [PodInfo(pod) for pod in admit_pods(document)]
        count = len(document.get("pods") or ())
        self.bound: Sequence[PodInfo] = admitted[:count]
        self.pod = pod = admitted[count]
        nominated = [pod for pod in admitted[count:] if pod.nominated_node]
        self.profile = _profile(preset, document.get("pluginConfig"))
        self.state = ClusterState(ShapeMix().frozen)
        self.cycle = Cycle(self.profile, self.state.nodes, self.state.nominations)
        self._post_filters = PostFilters(self.state)
        for namespace in admit_namespaces(document):
            self.state.nodes.pods.set_namespace(namespace.metadata.name, namespace.metadata.labels or {})
        events: list[Any] = [
            *map(admit_node, document.get("nodes") or ()),
            *self.bound,
            *nominated,
            *admit_objects(document),
        ]
        if shuffle is not None:
            shuffle.shuffle(events)
        pauses = shuffle.sample(range(len(events)), min(2, len(events))) if shuffle is not None else ()
        for i, event in enumerate(events):
            if isinstance(event, PodInfo) and event.node_name and event is not pod:
                self.state.confirm(event)
            elif isinstance(event, PodInfo):
                self.state.nominations.nominate(event, event.nominated_node)
            elif isinstance(event, ClusterObject):
                self.state.nodes.cluster.upsert(event)
            else:
                self.state.upsert_node(event)
            if i in pauses and self.cycle.place(pod).node is None:
                self.post_filter()

    def post_filter(self) -> PostFilterResult | None:
        """What is done about it when the pod fits nowhere."""
        return self._post_filters.ask(self.cycle, self.pod, self.cycle.read_key(self.pod))

    @property
    def nodes(self) -> NodeView:
        return self.state.nodes.view()


def decide(document: Json, preset: str = "kube", *, shuffle: Random | None = None) -> Json:
    """The verdict. Raises msgspec.ValidationError or QuantityError for objects that can't be read."""
    case = Case(document, preset, shuffle=shuffle)
    placement = case.cycle.place(case.pod)
    fit = _fit(case)
    feasible = np.array([fit[name]["code"] == "Success" for name in case.nodes.names], np.bool_)
    raw = case.cycle.explain(case.pod)[1] if feasible.any() else {}
    plugins = {plugin.name: _alone(plugin, case, feasible, raw) for plugin in _plugins(case.profile)}
    verdict = {
        "name": document.get("name", ""),
        "plugins": plugins,
        "fit": fit,
        **_totals(case, plugins, feasible),
        "selected": placement.node or "",
        "requests": _requests(case),
    }
    if placement.message:
        verdict["fitError"] = placement.message
    if placement.node is None:
        verdict |= preempt(case)
    return verdict


def preempt(case: Case) -> Json:
    """Victims on each node by a dry run of its own, and what the profile's plugins have come to."""
    result = case.post_filter()
    if result is None:
        return {}
    fresh = Cycle(case.profile, case.state.nodes, case.state.nominations)
    budgets = Budgets(case.state.nodes.cluster, case.state.condemned)
    attempt = fresh.attempt(case.pod, fresh.read_key(case.pod), case.state.placed, budgets)
    dry_run = attempt.dry_run()
    for row in dry_run.evictable:
        dry_run.try_out(np.array([row]))
    rows, costs = dry_run.candidates()
    victims = {
        case.nodes.names[row]: {
            "pods": [victim.name for victim in dry_run.victims_on(row)],
            "pdbViolations": violations,
        }
        for row, violations in zip(rows.tolist(), costs.violations.tolist(), strict=True)
    }
    answer: Json = {"postFilter": result.message, "victims": victims if case.pod.preempts else {}}
    if result.preemption is not None:
        node, chosen = result.preemption.node, [victim.name for victim in result.preemption.victims]
        answer["nominate"] = node
        assert victims[node] == {"pods": chosen, "pdbViolations": result.preemption.pdb_violations}
    return answer


def decide_requests(raw: Json) -> Json:
    """Requests of a single pod, in the shape of the oracle's --requests."""
    pod = admit_pod(raw, "uid")
    return {
        "pod": pod_requests(pod),
        "scored": [scored_requests(pod).get(name, 0) for name in ("cpu", "memory")],
        "onNode": {"requested": pod_requests_on_node(pod), "nonzero": list(nonzero_requests(pod))},
    }


def _plugins(profile: Profile) -> list[Plugin]:
    """Each plugin once, without the one that only says what is missing."""
    plugins: dict[str, Plugin] = {plugin.name: plugin for plugin in profile.filters}
    plugins |= {weighted.plugin.name: weighted.plugin for weighted in profile.scores}
    plugins.pop("UnsupportedRules", None)
    return list(plugins.values())


def _fit(case: Case) -> dict[str, Json]:
    """Node name to the first rejection, or Success."""
    names = case.nodes.names
    if not names:
        return {}
    prefilters = run_prefilters(case.profile, case.pod, case.nodes)
    rejection, allowed = prefilters.result
    if rejection is not None:
        status: Json = {"code": UNRESOLVABLE, "reasons": [rejection]}
        if len(prefilters.rejected_by) == 1:
            status["plugin"] = next(iter(prefilters.rejected_by))
        return dict.fromkeys(names, status)
    answers = case.cycle.rejections(case.pod)
    fit = {}
    for row, name in enumerate(names):
        first = int(answers.first[row])
        if allowed is not None and name not in allowed:
            fit[name] = EXCLUDED
        elif first >= len(case.profile.filters):
            fit[name] = _SUCCESS
        else:
            rejecting = case.profile.filters[first]
            fit[name] = {
                **_status(rejecting, case.pod, int(answers.bits[row]), bool(answers.unresolvable[row])),
                "plugin": rejecting.name,
            }
    return fit


def _alone(plugin: Plugin, case: Case, feasible: NDArray[np.bool_], scores: dict[str, Scores]) -> Json:
    """What one plugin says by itself: its filter on all nodes, its score on the feasible ones, as the
    cycle has it in its caches."""
    out: Json = {}
    names = case.nodes.names
    if isinstance(plugin, FilterPlugin):
        prefilter = plugin.prefilter(case.pod)
        rejection = prefilter.rejection or plugin.refuses(case.pod, case.nodes)
        if rejection is not None:
            out["preFilter"] = {"code": UNRESOLVABLE, "reasons": [rejection]}
        elif plugin.applies(case.pod) or plugin.context(case.pod, case.nodes):
            out["preFilter"] = _SUCCESS
            if prefilter.node_names is not None:
                out["preFilterNodes"] = sorted(prefilter.node_names)
            result = plugin.filter(case.pod, case.nodes)
            out["filter"] = dict(zip(names, _statuses(plugin, case.pod, result), strict=True))
        else:
            out["preFilter"] = {"code": "Skip"}
    weight = {s.plugin.name: s.weight for s in case.profile.scores}.get(plugin.name)
    if weight is not None and isinstance(plugin, ScorePlugin) and feasible.any():
        found = _scores(plugin, case, feasible, scores)
        out["weight"] = weight
        if found is not None:
            scored = [name for name, fits in zip(names, feasible, strict=True) if fits]
            out["raw"] = dict(zip(scored, found.raw.tolist(), strict=True))
            out["normalized"] = dict(zip(scored, found.normalized.tolist(), strict=True))
    return out


def _scores(
    plugin: ScorePlugin, case: Case, feasible: NDArray[np.bool_], scores: dict[str, Scores]
) -> Ranking | None:
    """Raw and normalised scores of the feasible nodes; None for a plugin with nothing to say."""
    if not plugin.row_local:
        says = plugin.prefers(case.pod, case.nodes)
        return plugin.rank(case.pod, case.nodes, feasible) if says else None
    if plugin.name not in scores:
        return None
    raw = scores[plugin.name][feasible]
    return Ranking(raw, plugin.normalize(raw))


def _statuses(plugin: FilterPlugin, pod: PodInfo, result: FilterResult) -> Iterator[Json]:
    for bits, unresolvable in zip(result.reason_bits.tolist(), result.unresolvable.tolist(), strict=True):
        yield _status(plugin, pod, bits, unresolvable) if bits else _SUCCESS


def _status(plugin: FilterPlugin, pod: PodInfo, bits: int, unresolvable: bool) -> Json:
    reasons = [text for k, text in enumerate(plugin.reasons(pod)) if bits >> k & 1]
    return {"code": UNRESOLVABLE if unresolvable else "Unschedulable", "reasons": reasons}


def _totals(case: Case, plugins: dict[str, Json], feasible: NDArray[np.bool_]) -> Json:
    """Weighted sums of normalised scores; among the best, a plugin of full resolution decides."""
    names = [name for name, fits in zip(case.nodes.names, feasible, strict=True) if fits]
    total = dict.fromkeys(names, 0)
    for weighted in case.profile.scores:
        for name, score in plugins[weighted.plugin.name].get("normalized", {}).items():
            total[name] += score * weighted.weight
    best = _highest(total)
    for weighted in case.profile.scores:
        raw = plugins[weighted.plugin.name].get("raw")
        if weighted.plugin.full_resolution and raw is not None:
            best = _highest({name: raw[name] for name in best})
    return {"total": total, "best": best or None}


def _highest(scores: dict[str, int]) -> list[str]:
    highest = max(scores.values(), default=0)
    return sorted(name for name, score in scores.items() if score == highest)


def _requests(case: Case) -> Json:
    nodes = case.state.nodes
    names = {row: name for name, row in nodes.resources.items()}
    ports = {name: _port_texts(nodes.ports[row]) for name, row in nodes.row_of.items()}

    def amounts(column: NDArray[np.int64]) -> dict[str, int]:
        return {names[row]: amount for row, amount in enumerate(column.tolist()) if amount}

    return {
        "pod": case.pod.requests,
        "scored": [
            case.pod.scored_requests.get(resource.name, 0) for resource in _fit_of(case.profile).resources
        ],
        "pods": {
            pod.name: {"requested": pod.usage, "nonzero": list(pod.nonzero_requests)} for pod in case.bound
        },
        "nodes": {
            name: {
                "requested": amounts(nodes.requested[:, row]),
                "nonzero": nodes.nonzero_requested[[CPU, MEMORY], row].tolist(),
                "allocatable": amounts(nodes.allocatable[:, row]),
                "podCount": int(nodes.pod_count[row]),
                "podLimit": int(nodes.pod_limit[row]),
                **({"ports": ports[name]} if ports[name] else {}),
            }
            for name, row in nodes.row_of.items()
        },
    }


def _port_texts(ports: Any) -> list[str]:
    return sorted(f"{protocol}/{port}/{ip}" for protocol, port, ip in ports)


def _fit_of(profile: Profile) -> NodeResourcesFit:
    [plugin] = [plugin for plugin in profile.filters if isinstance(plugin, NodeResourcesFit)]
    return plugin


def _profile(preset: str, plugin_config: list[Json] | None = None) -> Profile:
    """Raises PluginError for arguments that make no sense."""
    config = {"schedulerName": "parity", "preset": preset, "pluginConfig": plugin_config or []}
    return build_profile(msgspec.convert(config, ProfileConfig))


def documents(stream: TextIO) -> Iterator[Json]:
    """JSON values one after another, with any white space between them, as Go's decoder reads them.

    Raises json.JSONDecodeError for what is left over at the end.
    """
    decoder, text = json.JSONDecoder(), ""
    for line in stream:
        text = (text + line).lstrip()
        while text:
            try:
                value, end = decoder.raw_decode(text)
            except json.JSONDecodeError:
                break  # not complete yet
            yield value
            text = text[end:].lstrip()
    if text:
        decoder.raw_decode(text)


@click.command(help=__doc__)
@click.option("--profile", "preset", type=click.Choice(PRESETS), default="kube", show_default=True)
@click.option("--requests", "requests_only", is_flag=True, help="Documents are pods; print their requests.")
def main(preset: str, requests_only: bool) -> None:
    if not requests_only:
        click.echo(f"left out, not built yet: {', '.join(_missing(preset))}", err=True)
    for document in documents(sys.stdin):
        verdict = decide_requests(document) if requests_only else decide(document, preset)
        sys.stdout.write(msgspec.json.encode(verdict).decode() + "\n")
        sys.stdout.flush()


def _missing(preset: str) -> list[str]:
    """What the oracle's answers have and ours have not."""
    profile = _profile(preset)
    filters = {plugin.name for plugin in profile.filters}
    scores = {weighted.plugin.name for weighted in profile.scores}
    others = {plugin.name for plugin in profile.post_filters}
    return [name for name in KUBE_PLUGINS if name not in filters | scores | others]


if __name__ == "__main__":
    main()
