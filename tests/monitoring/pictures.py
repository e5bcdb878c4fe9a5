"""The dashboards as pictures: each panel's queries, asked of a real Prometheus, on a grid like Grafana's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LinearLocator

from tests.monitoring.dashboards import BOARDS
from tests.monitoring.panels import Board, Kind, Panel, Query
from tests.monitoring.prometheus import Prometheus

STEP_S = 1.0
WINDOW, LONG_WINDOW = "10s", "1m"
"""Of lines and of numbers. Grafana's own choice for lines would be a minute, which is longer than the run."""
_MAX_IN_LEGEND = 6
_HEIGHTS = {Kind.NUMBER: 1.0, Kind.LINES: 2.2, Kind.STACK: 2.2}


def draw(prometheus: Prometheus, docs: Path, *, start: float, end: float) -> None:
    """`dashboard-….svg` for each dashboard. `start`, `end`: UNIX seconds."""
    matplotlib.use("Agg")
    plt.rcParams.update({"svg.hashsalt": "dashboards", "font.size": 7, "svg.fonttype": "none"})
    for board in BOARDS:
        _draw(board, prometheus, docs / f"dashboard-{board.uid.removeprefix('wholepod-')}.svg", start, end)


def _lines_of(board: Board) -> list[list[Panel]]:
    """Panels side by side, as the grid breaks them."""
    lines: list[list[Panel]] = []
    for row in board.rows:
        used = 24
        for panel in row.panels:
            if used + panel.width > 24:
                lines.append([])
                used = 0
            lines[-1].append(panel)
            used += panel.width
    return lines


def _draw(board: Board, prometheus: Prometheus, path: Path, start: float, end: float) -> None:
    lines = _lines_of(board)
    heights = [_HEIGHTS[line[0].kind] for line in lines]
    figure = plt.figure(figsize=(14, sum(heights) * 1.1 + 0.6))
    grid = figure.add_gridspec(
        len(lines),
        24,
        height_ratios=heights,
        left=0.05,
        right=0.99,
        bottom=0.02,
        top=0.96,
        wspace=4.5,
        hspace=0.35,
    )
    for i, line in enumerate(lines):
        column = 0
        for panel in line:
            axes = figure.add_subplot(grid[i, column : column + panel.width])
            column += panel.width
            axes.set_title(panel.title, loc="left", fontsize=8, fontweight="bold")
            if panel.kind is Kind.NUMBER:
                _number(axes, panel, prometheus, end)
            else:
                _plot(axes, panel, prometheus, start, end)
    figure.suptitle(board.title, fontsize=12)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _asked(query: Query, window: str = WINDOW) -> str:
    return query.expression.replace("$job", "wholepod").replace("$__rate_interval", window)


def _number(axes: Axes, panel: Panel, prometheus: Prometheus, end: float) -> None:
    axes.axis("off")
    values = [float(s["value"][1]) for s in prometheus.query(_asked(panel.queries[0], LONG_WINDOW), end)]
    text = formatted(values[0], panel.unit) if values else "no data"
    warns = bool(values) and panel.warn_above is not None and values[0] >= panel.warn_above
    axes.text(
        0.02, 0.35, text, fontsize=18, color="#e65100" if warns else "#2e7d32", transform=axes.transAxes
    )


def _plot(axes: Axes, panel: Panel, prometheus: Prometheus, start: float, end: float) -> None:
    drawn: list[tuple[str, dict[float, float]]] = []
    for query in panel.queries:
        for series in prometheus.query_range(_asked(query), start, end, STEP_S):
            values = {float(at) - start: float(value) for at, value in series["values"]}
            finite = {at: value for at, value in values.items() if math.isfinite(value)}
            drawn.append((_legend(query, series["metric"]), finite))
    drawn.sort(key=lambda each: -max(each[1].values(), default=0.0))
    if panel.kind is Kind.STACK:
        times = sorted({at for _, values in drawn for at in values})
        heights = [[values.get(at, 0.0) for at in times] for _, values in drawn]
        if times:
            axes.stackplot(times, heights, labels=[label for label, _ in drawn], alpha=0.7)
    else:
        for label, values in drawn:
            axes.plot(list(values), list(values.values()), lw=1, label=label)
    axes.set_xlim(0, end - start)
    axes.set_ylim(0, _ceiling(axes, panel.unit))
    axes.yaxis.set_major_locator(LinearLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: formatted(value, panel.unit)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s"))
    axes.grid(alpha=0.25)
    if drawn:
        handles, labels = axes.get_legend_handles_labels()
        shown = slice(_MAX_IN_LEGEND)
        axes.legend(handles[shown], labels[shown], fontsize=5.5, loc="upper left", framealpha=0.6)


def _ceiling(axes: Axes, unit: str) -> float:
    """A round number, of which quarters are still short to write, somewhat above all values."""
    highest = max(axes.dataLim.y1, 0.0) * 1.1
    if not math.isfinite(highest) or highest == 0:
        return 1.0
    base = 2.0 if unit == "bytes" else 10.0
    step = base ** math.floor(math.log(highest, base))
    return next(step * factor for factor in (1, 1.5, 2, 3, 4, 6, 8, 10) if step * factor >= highest)


def _legend(query: Query, labels: dict[str, Any]) -> str:
    text = query.legend
    for name, value in labels.items():
        text = text.replace(f"{{{{{name}}}}}", str(value))
    return text


def formatted(value: float, unit: str) -> str:
    """As Grafana would write it, more or less."""
    match unit:
        case "bytes":
            for name, size in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
                if abs(value) >= size:
                    return f"{value / size:.3g} {name}"
            return f"{value:.3g} B"
        case "percentunit":
            return f"{value * 100:.3g} %"
        case "s":
            return f"{value:.3g} s" if abs(value) >= 1 or value == 0 else f"{value * 1000:.3g} ms"
        case "ops" | "reqps":
            return f"{value:.3g} /s"
    return f"{value:.3g}"
