"""Every PromQL expression of the dashboards and the rules, read without a Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser
import yaml

from tests.monitoring.dashboards import BOARDS, FOLDER

RULES = FOLDER / "rules.yaml"


@dataclass(frozen=True)
class Expression:
    where: str
    """Which panel or alert, for people."""
    text: str
    """As Prometheus reads it: without Grafana's variables."""
    of_alert: bool = False
    legend: str = ""


def of_dashboards(*, job: str = "wholepod", window: str = "1m") -> Iterator[Expression]:
    for board in BOARDS:
        for row in board.rows:
            for panel in row.panels:
                for query in panel.queries:
                    text = query.expression.replace("$job", job).replace("$__rate_interval", window)
                    yield Expression(
                        f"{board.title} / {row.title} / {panel.title}", text, legend=query.legend
                    )


def rules() -> list[dict[str, Any]]:
    """The alerts of all groups."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def of_rules() -> Iterator[Expression]:
    for rule in rules():
        yield Expression(rule["alert"], rule["expr"], of_alert=True)


def selectors(text: str) -> list[promql_parser.VectorSelector]:
    """What it asks for. Raises ValueError for what is no PromQL."""
    found: list[promql_parser.VectorSelector] = []

    def visit(part: promql_parser.Expr) -> None:
        if isinstance(part, promql_parser.VectorSelector):
            found.append(part)
        elif isinstance(part, promql_parser.MatrixSelector):
            found.append(part.vector_selector)

    promql_parser.walk(promql_parser.parse(text), visit)
    return found
