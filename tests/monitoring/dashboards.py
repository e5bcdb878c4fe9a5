"""The dashboards as Grafana reads them. `make dashboards` writes them, a test holds them equal.

Built with Grafana's own types, so a field that Grafana does not know can't get in.
"""

from __future__ import annotations

from pathlib import Path

from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as grafana
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_types
from grafana_foundation_sdk.models import dashboard as types

from tests.monitoring.coscheduling import CO_SCHEDULING
from tests.monitoring.panels import Board, Kind, Panel
from tests.monitoring.scheduling import SCHEDULING

FOLDER = Path(__file__).parents[2] / "deploy" / "monitoring"
BOARDS = (SCHEDULING, CO_SCHEDULING)
_SOURCE = types.DataSourceRef(type_val="prometheus", uid="${datasource}")
_HEIGHTS = {Kind.NUMBER: 4, Kind.LINES: 8, Kind.STACK: 8}


def file_of(board: Board) -> Path:
    return FOLDER / f"{board.uid}.json"


def text(board: Board) -> str:
    """The file's content."""
    built = (
        grafana.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["wholepod", "kubernetes"])
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(types.DashboardCursorSync.CROSSHAIR)
        .with_variable(grafana.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(
            grafana.QueryVariable("job")
            .label("Job")
            .query("label_values(wholepod_node_memory_bytes, job)")
            .datasource(_SOURCE)
            .refresh(types.VariableRefresh.ON_TIME_RANGE_CHANGED)
        )
        .link(grafana.DashboardLink("Wholepod").type(types.DashboardLinkType.DASHBOARDS).tags(["wholepod"]))
    )
    number = 0
    for row in board.rows:
        built = built.with_row(grafana.Row(row.title))
        for panel in row.panels:
            number += 1
            built = built.with_panel(
                _number(panel, number) if panel.kind is Kind.NUMBER else _lines(panel, number)
            )
    return JSONEncoder(sort_keys=True, indent=2).encode(built.build()) + "\n"


def _targets(panel: Panel) -> list[prometheus.Dataquery]:
    return [
        prometheus.Dataquery().expr(query.expression).legend_format(query.legend).ref_id(chr(ord("A") + i))
        for i, query in enumerate(panel.queries)
    ]


def _lines(panel: Panel, number: int) -> timeseries.Panel:
    stacked = panel.kind is Kind.STACK
    mode = common_types.StackingMode.NORMAL if stacked else common_types.StackingMode.NONE
    legend = common.VizLegendOptions().display_mode(common_types.LegendDisplayMode.LIST)
    built = (
        timeseries.Panel()
        .id(number)
        .title(panel.title)
        .description(panel.description)
        .datasource(_SOURCE)
        .unit(panel.unit)
        .min(0)
        .height(_HEIGHTS[panel.kind])
        .span(panel.width)
        .fill_opacity(30 if stacked else 5)
        .show_points(common_types.VisibilityMode.NEVER)
        .stacking(common.StackingConfig().mode(mode))
        .legend(legend.placement(common_types.LegendPlacement.BOTTOM).show_legend(True))
        .tooltip(common.VizTooltipOptions().mode(common_types.TooltipDisplayMode.MULTI))
    )
    for target in _targets(panel):
        built = built.with_target(target)
    return built


def _number(panel: Panel, number: int) -> stat.Panel:
    steps = [types.Threshold(color="green")]
    if panel.warn_above is not None:
        steps.append(types.Threshold(value=panel.warn_above, color="orange"))
    thresholds = grafana.ThresholdsConfig().mode(types.ThresholdsMode.ABSOLUTE).steps(steps)
    built = (
        stat.Panel()
        .id(number)
        .title(panel.title)
        .description(panel.description)
        .datasource(_SOURCE)
        .unit(panel.unit)
        .height(_HEIGHTS[panel.kind])
        .span(panel.width)
        .thresholds(thresholds)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    for target in _targets(panel):
        built = built.with_target(target)
    return built


if __name__ == "__main__":
    for each in BOARDS:
        file_of(each).write_text(text(each))
