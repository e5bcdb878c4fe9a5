"""Dashboards, rules and metrics on a real Prometheus that scrapes a real Wholepod."""

from __future__ import annotations

from pathlib import Path

from tests.monitoring import __main__ as monitoring


def test_rules_are_right_and_fire_when_they_should() -> None:
    monitoring.check_rules()


def test_every_panel_has_data(tmp_path: Path) -> None:
    monitoring.busy(tmp_path, docs=None)


def test_a_large_cluster_has_few_series(tmp_path: Path) -> None:
    monitoring.large(tmp_path)
