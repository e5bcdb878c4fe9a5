"""A converted profile runs the plugins that kube-scheduler would run, in its order and with its weights."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from scheduler.config import ConfigurationError, parse
from scheduler.convert import convert
from scheduler.convert.plugin_sets import DEFAULT_PLUGINS
from scheduler.convert.source import API_VERSION, KIND
from scheduler.core.plugin import FilterPlugin, ScorePlugin
from scheduler.plugins import BUILT_IN
from scheduler.plugins.profiles import build_profile
from tests.parity.oracle_process import Oracle, OracleError

Json = dict[str, Any]

CASES = 200
NEEDED = ["PrioritySort", "DefaultBinder"]
"""kube-scheduler does not start without these."""
FILTERS = [name for name, plugin in BUILT_IN.items() if issubclass(plugin, FilterPlugin)]
SCORES = [name for name, plugin in BUILT_IN.items() if issubclass(plugin, ScorePlugin)]


def random_profile(rng: Random) -> Json:
    """Disables and enables plugins here and there; often the same one in several places."""
    plugins: Json = {}
    known = {
        "multiPoint": list(DEFAULT_PLUGINS),
        "filter": FILTERS,
        "postFilter": ["DefaultPreemption", "DynamicResources"],
        "score": SCORES,
    }
    for point, names in known.items():
        names = [name for name in names if name in DEFAULT_PLUGINS and name not in NEEDED]
        given: Json = {}
        if rng.random() < 0.5:
            off = rng.sample(names, min(len(names), rng.choice([1, 1, 2, 4])))
            given["disabled"] = [{"name": name} for name in (["*"] if rng.random() < 0.3 else off)]
        if rng.random() < 0.6:
            on = rng.sample(names, min(len(names), rng.choice([1, 2, 3])))
            if point == "multiPoint" and given.get("disabled") == [{"name": "*"}]:
                on += NEEDED
            given["enabled"] = [_enabled(rng, name, weighed=point != "filter") for name in on]
        if given:
            plugins[point] = given
    return {"schedulerName": f"s{rng.random()}", "plugins": plugins}


def _enabled(rng: Random, name: str, *, weighed: bool) -> Json:
    return {
        "name": name,
        **({"weight": rng.choice([0, 1, 2, 7, 300])} if weighed and rng.random() < 0.6 else {}),
    }


def test_converted_profiles_run_the_same_plugins() -> None:
    accepted, kinds = 0, set()
    with Oracle(profiles_only=True) as oracle:
        for number in range(CASES):
            rng = Random(f"profile:{number}")
            document = {"apiVersion": API_VERSION, "kind": KIND, "profiles": [random_profile(rng)]}
            try:
                [kube] = oracle.ask(document)["profiles"].values()
            except OracleError:
                continue
            accepted += 1
            converted = convert(json.dumps(document), source="file")
            [profile] = parse(json.dumps(converted.document)).profiles
            ours = build_profile(profile)
            filters = [plugin.name for plugin in ours.filters]
            assert [plugin.name for plugin in ours.post_filters] == [
                name for name in kube["postFilter"] if name in BUILT_IN
            ], document
            assert filters[0] == "UnsupportedRules"
            assert filters[1:] == [name for name in kube["filter"] if name in FILTERS], document
            assert {score.plugin.name: score.weight for score in ours.scores} == {
                name: weight for name, weight in kube["score"].items() if name in SCORES
            }, document
            kinds |= {(len(filters), len(ours.scores))}
    assert accepted > CASES / 2
    assert len(kinds) > 20


HALF_A_CONSTRAINT = {"defaultingType": "List", "defaultConstraints": [{"maxSkew": 1}]}


def test_both_refuse_the_same() -> None:
    refused: list[Json] = [
        {"profiles": [{"schedulerName": "a"}, {}]},
        {"profiles": [{"schedulerName": "a"}, {"schedulerName": "a"}]},
        {"profiles": [{"plugins": {"score": {"enabled": [{"name": "ImageLocality"}] * 2}}}]},
        {"profiles": [{"pluginConfig": [{"name": "NodeResourcesFit", "args": {"scoring": {}}}]}]},
        {
            "profiles": [
                {
                    "pluginConfig": [
                        {"name": "PodTopologySpread", "args": {"defaultConstraints": [{"maxSkew": 1}]}}
                    ]
                }
            ]
        },
        {"profiles": [{"pluginConfig": [{"name": "NodeAffinity"}, {"name": "NodeAffinity"}]}]},
        {"podInitialBackoffSeconds": 20, "podMaxBackoffSeconds": 10},
        {"leaderElection": {"leaseDuration": "5s"}},
        {"leaderElection": {"leaseDuration": "soon"}},
        {"algorithmSource": {}},
    ]
    with Oracle(profiles_only=True) as oracle:
        for fields in refused:
            document = {"apiVersion": API_VERSION, "kind": KIND, **fields}
            with pytest.raises(OracleError):
                oracle.ask(document)
            with pytest.raises(ConfigurationError):
                convert(json.dumps(document), source="file")
