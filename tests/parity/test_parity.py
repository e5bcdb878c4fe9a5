"""Wholepod against kube-scheduler's own plugins; `make parity` does the same with more cases."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.parity import subjects
from tests.parity.decide import decide
from tests.parity.generate import random_cluster
from tests.parity.judge import compare
from tests.parity.oracle_process import Oracle
from tests.parity.run import Family, Outcome, run

Json = dict[str, Any]
CASES = sorted((Path(__file__).parent / "cases").glob("*.json"))


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with Oracle() as running:
        yield running


@pytest.mark.parametrize("family", ["pods", "clusters", "preemptions"])
def test_random_cases_do_not_differ(family: Family) -> None:
    outcome = run(family, range(2000))
    assert outcome.cases == 2000
    assert not outcome.kept, "\n".join(
        f"{case['document'].get('name', case['document'])}: {case['differences'][:5]}"
        for case in outcome.kept
    )
    assert not outcome.shortfalls(family)


def test_a_run_that_is_about_too_little_falls_short() -> None:
    full = Counter(dict.fromkeys(subjects.SUBJECTS, 1000))
    assert subjects.shortfalls(full, 20_000) == []
    assert subjects.shortfalls(full, 200_000) == []
    assert len(subjects.shortfalls(Counter(), 100)) == len(subjects.SUBJECTS)
    full["subject: volumes"] = 999
    assert subjects.shortfalls(full, 20_000) == [
        "subject: volumes: 999 of 20000 cases, should be 1000 or more"
    ]
    assert subjects.shortfalls(full, 15_000) == []


@pytest.mark.parametrize(
    ("name", "document", "verdict"),
    [
        ("victims", {}, {"victims": {"n": {}}}),
        (
            "disruption budgets where there are victims",
            {"objects": [{"kind": "PodDisruptionBudget"}]},
            {"victims": {"n": {}}},
        ),
        ("nominated pods", {"nominated": [{}]}, {}),
        ("volumes", {"pod": {"spec": {"volumes": [{"name": "v", "ephemeral": {}}]}}}, {}),
        ("priorities", {"pods": [{"spec": {"priority": 5}}]}, {}),
        ("minDomains", {"pod": {"spec": {"topologySpreadConstraints": [{}, {"minDomains": 2}]}}}, {}),
    ],
)
def test_subjects_are_recognised(name: str, document: Json, verdict: Json) -> None:
    nothing: Json = {"pods": [], "pod": {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}, "objects": []}
    assert subjects.of(nothing, {}) == set()
    assert f"subject: {name}" in subjects.of({**nothing, **document}, verdict)


def test_the_first_differing_cases_are_kept_whoever_is_faster() -> None:
    outcome = Outcome()
    for numbers in (range(50, 60), range(0, 5), range(20, 40)):
        outcome.add(Outcome(kept=[{"number": number} for number in numbers]))
    assert [case["number"] for case in outcome.kept] == [0, 1, 2, 3, 4, 20, 21, 22, 23, 24]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_pinned_cases_do_not_differ(path: Path, oracle: Oracle) -> None:
    document = json.loads(path.read_text())
    kube = oracle.ask(document)
    for seed in range(5):
        assert compare(kube, decide(document, shuffle=Random(seed))) == []
    assert compare(kube, decide(document)) == []
    expected = document["expected"]
    assert {name for name, status in kube["fit"].items() if status["code"] == "Success"} == set(
        expected["fits"]
    )
    assert kube.get("fitError", "") == expected.get("fitError", "")


def test_memory_fit_picks_what_its_scores_say() -> None:
    """No oracle for this one: totals are added up again, from scratch, where the cycle patches caches."""
    mixed = 0
    for number in range(400):
        document = random_cluster(number)
        config = document.get("pluginConfig", [])
        document["pluginConfig"] = [c for c in config if c["name"] != "NodeResourcesBalancedAllocation"]
        verdict = decide(document, "memory-fit", shuffle=Random(number))
        assert verdict["selected"] in (verdict["best"] or [""]), document["name"]
        plugins = verdict["plugins"].items()
        mixed += any(name != "MemoryFit" and len({*p.get("raw", {}).values()}) > 1 for name, p in plugins)
    assert mixed > 40


def _first(fit: Json) -> str:
    return min(fit)


def _flip_code(verdict: Json) -> None:
    verdict["fit"][_first(verdict["fit"])] = {"code": "Unschedulable", "reasons": ["Too many pods"]}


def _reword(verdict: Json) -> None:
    verdict["fitError"] = verdict.get("fitError", "") + "!"


def _count_a_millicore_more(verdict: Json) -> None:
    verdict["requests"]["pod"]["cpu"] = verdict["requests"]["pod"].get("cpu", 0) + 1


def _fill_a_node(verdict: Json) -> None:
    node = verdict["requests"]["nodes"][_first(verdict["fit"])]
    node["nonzero"] = [node["nonzero"][0], node["nonzero"][1] + 1]


def _forget_a_port(verdict: Json) -> None:
    node = verdict["requests"]["nodes"][_first(verdict["fit"])]
    node["ports"] = [*node.get("ports", []), "TCP/1/0.0.0.0"]


def _let_a_plugin_reject(verdict: Json) -> None:
    verdict["plugins"]["NodePorts"] = {
        "preFilter": {"code": "Success"},
        "filter": {_first(verdict["fit"]): {"code": "Unschedulable", "reasons": ["no"]}},
    }


def _score_higher(verdict: Json) -> None:
    raw = verdict["plugins"]["NodeResourcesFit"]["raw"]
    raw[min(raw)] += 1


def _score_in_other_steps(verdict: Json) -> None:
    normalized = verdict["plugins"]["ImageLocality"]["normalized"]
    normalized[min(normalized)] += 1


def _have_an_opinion(verdict: Json) -> None:
    nodes = verdict["fit"]
    verdict["plugins"]["NodeAffinity"] |= {
        "raw": dict.fromkeys(nodes, 1),
        "normalized": dict.fromkeys(nodes, 1),
    }


def _weigh_more(verdict: Json) -> None:
    verdict["plugins"]["TaintToleration"]["weight"] += 1


def _add_up_to_more(verdict: Json) -> None:
    verdict["total"][min(verdict["total"])] += 1


def _pick_another(verdict: Json) -> None:
    verdict["selected"] = "elsewhere"


@pytest.mark.parametrize(
    ("spoil", "path"),
    [
        (_flip_code, "fit."),
        (_reword, "fitError"),
        (_count_a_millicore_more, "requests.pod.cpu"),
        (_fill_a_node, "requests.nodes."),
        (_forget_a_port, "requests.nodes."),
        (_let_a_plugin_reject, "plugins.NodePorts.filter."),
        (_score_higher, "plugins.NodeResourcesFit.raw."),
        (_score_in_other_steps, "plugins.ImageLocality.normalized."),
        (_have_an_opinion, "plugins.NodeAffinity.raw."),
        (_weigh_more, "plugins.TaintToleration.weight"),
        (_add_up_to_more, "total."),
        (_pick_another, "selected"),
    ],
)
def test_the_judge_sees_a_single_spoilt_value(
    spoil: Callable[[Json], None], path: str, oracle: Oracle
) -> None:
    document = _case("sidecars-take-host-ports")
    kube, wholepod = oracle.ask(document), decide(document)
    assert compare(kube, wholepod) == []
    spoilt = copy.deepcopy(wholepod)
    spoil(spoilt)
    assert [difference.path for difference in compare(kube, spoilt) if difference.path.startswith(path)]


def _case(name: str) -> Json:
    document: Json = json.loads((Path(__file__).parent / "cases" / f"{name}.json").read_text())
    return document


def test_decide_reads_documents_one_after_another() -> None:
    documents = [random_cluster(number) for number in (1, 2, 3)]
    # The same white space that Go's decoder takes: none, a newline, an indented document.
    text = json.dumps(documents[0]) + json.dumps(documents[1]) + "\n" + json.dumps(documents[2], indent=1)
    answer = subprocess.run(
        [sys.executable, "-m", "tests.parity.decide", "--profile", "kube"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    verdicts = [json.loads(line) for line in answer.stdout.splitlines()]
    assert verdicts == [decide(document) for document in documents]
    assert "DynamicResources" in answer.stderr


def test_decide_refuses_half_a_document() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "tests.parity.decide"], input='{"name": "half"', capture_output=True, text=True
    )
    assert answer.returncode != 0
    assert "JSONDecodeError" in answer.stderr
