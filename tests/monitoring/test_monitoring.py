"""Dashboards and rules, as far as no Prometheus is needed; test_on_prometheus.py tries them on a real one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as grafana

from scheduler.observe.room import POD_SIZES
from tests.monitoring import dashboards
from tests.monitoring.dashboards import BOARDS, file_of
from tests.monitoring.expressions import RULES, Expression, of_dashboards, of_rules, rules, selectors
from tests.monitoring.panels import Board, Panel

ROOT = Path(__file__).parents[2]
CONTROLLER = ROOT / "docs" / "controller.md"
METRICS, RUNBOOKS = ROOT / "docs" / "metrics.md", ROOT / "docs" / "runbooks.md"
OF_OTHERS = {
    "up": set[str](),
    "process_cpu_seconds_total": set[str](),
    "process_resident_memory_bytes": set[str](),
}
"""Of Prometheus itself and the Python client: name → labels."""
SCRAPED = {"job", "instance"}
"""Labels that Prometheus adds."""
EXPRESSIONS = [*of_dashboards(), *of_rules()]
PANELS = [panel for board in BOARDS for panel in board.panels]
BY_BOARD = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
BY_EXPRESSION = pytest.mark.parametrize("expression", EXPRESSIONS, ids=lambda expression: expression.where)


def documented() -> dict[str, set[str]]:
    """Series that can be asked for, by the pages: name → labels."""
    found = dict(OF_OTHERS)
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", METRICS.read_text() + CONTROLLER.read_text(), re.MULTILINE
    )
    for name, kind, labels in rows:
        names = set(re.findall(r"`(\w+)`", labels))
        if kind == "histogram":
            found |= {f"{name}_{part}": names for part in ("count", "sum")}
            found[f"{name}_bucket"] = names | {"le"}
        else:
            found[name] = names
    return found


DOCUMENTED = documented()


@BY_BOARD
def test_the_files_are_what_the_code_makes(board: Board) -> None:
    assert file_of(board).read_text() == dashboards.text(board), "run `make dashboards`"


@BY_BOARD
def test_grafana_knows_every_field(board: Board) -> None:
    """Read into Grafana's types and written again, nothing is lost and nothing added."""
    plugins.register_default_plugins()
    written = file_of(board).read_text()
    read = grafana.Dashboard.from_json(json.loads(written))
    assert JSONEncoder(sort_keys=True, indent=2).encode(read) + "\n" == written
    drawn = [panel for panel in json.loads(written)["panels"] if panel["type"] != "row"]
    assert [panel["title"] for panel in drawn] == [panel.title for panel in board.panels]
    assert len({panel["id"] for panel in drawn}) == len(drawn)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_panels_say_what_they_mean(panel: Panel) -> None:
    assert panel.description.endswith(".")
    assert panel.queries
    for query in panel.queries:
        assert re.search(r'job="\$job(-controller)?"', query.expression)
        assert query.legend


@BY_EXPRESSION
def test_expressions_ask_for_metrics_that_exist(expression: Expression) -> None:
    found = selectors(expression.text)
    assert found
    for selector in found:
        assert selector.name in DOCUMENTED
        asked = {matcher.name for matcher in selector.matchers.matchers}
        assert "job" in asked
        assert asked <= DOCUMENTED[selector.name] | SCRAPED


@BY_EXPRESSION
def test_expressions_group_by_labels_that_exist(expression: Expression) -> None:
    """Of some metric that they ask for; a legend shows these labels and no others."""
    known = {
        label for selector in selectors(expression.text) for label in DOCUMENTED[str(selector.name)]
    } | SCRAPED
    assert grouped_by(expression.text) <= known
    shown = set(re.findall(r"\{\{(\w+)\}\}", expression.legend))
    assert shown <= grouped_by(expression.text) | SCRAPED


def grouped_by(expression: str) -> set[str]:
    labels: set[str] = set()

    def visit(part: promql_parser.Expr) -> None:
        if isinstance(part, promql_parser.AggregateExpr) and part.modifier is not None:
            labels.update(part.modifier.labels)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return labels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sum(rate(up[5m])", "unclosed left parenthesis"),
        ("rate(up)", "expected type matrix"),
        ("median(up)", "unknown function"),
    ],
)
def test_what_is_no_promql_is_found(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        selectors(text)


def test_every_metric_is_on_a_dashboard() -> None:
    """Or is known not to be: a metric that nobody looks at is none."""
    shown = {str(selector.name) for each in of_dashboards() for selector in selectors(each.text)}
    shown |= {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    rows = re.findall(
        r"^\| `((?:scheduler|wholepod|rest_client|leader)\w+)` \|", METRICS.read_text(), re.MULTILINE
    )
    assert set(rows) - shown == {
        "scheduler_volume_scheduling_stage_error_total",
        "scheduler_preemption_victims",
    }


def test_pod_sizes_are_those_of_the_metric() -> None:
    asked = {
        matcher.value
        for expression in EXPRESSIONS
        for selector in selectors(expression.text)
        for matcher in selector.matchers.matchers
        if matcher.name == "pod_size"
    }
    assert asked
    assert asked <= POD_SIZES.keys()


# ---- rules and runbooks


def test_every_alert_has_a_runbook_and_no_runbook_is_left_over() -> None:
    sections = re.split(r"^## ", RUNBOOKS.read_text(), flags=re.MULTILINE)[1:]
    assert [section.split("\n", 1)[0] for section in sections] == [rule["alert"] for rule in rules()]
    for section in sections:
        assert [part for part in ("**Means**:", "**Look**:", "**Do**:") if part not in section] == []


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_alerts_say_what_people_need(rule: dict[str, dict[str, str]]) -> None:
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    annotations = rule["annotations"]
    assert annotations.keys() == {"summary", "description", "runbook"}
    assert annotations["runbook"] == f"docs/runbooks.md#{str(rule['alert']).lower()}"
    assert annotations["summary"].endswith(".")
    assert annotations["description"].endswith(".")


def test_panels_that_runbooks_name_exist() -> None:
    titles = {panel.title for panel in PANELS}
    named = {" ".join(name.split()) for name in re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", RUNBOOKS.read_text())}
    assert named - titles == {"Targets"}  # Prometheus' own page


def test_every_alert_has_a_unit_test_that_fires_and_one_that_does_not() -> None:
    """promtool runs them, in test_on_prometheus.py."""
    cases = [
        case
        for test in yaml.safe_load(RULES.with_name("rules_test.yaml").read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    fires = {case["alertname"] for case in cases if case.get("exp_alerts")}
    silent = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    assert fires == silent == {rule["alert"] for rule in rules()}
