"""Writes what was measured: two tables into docs/packing.md, the plot beside it."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt

from tests.bench.packing.measure import Windows

BEGIN, END = "<!-- results: written by `make bench-packing` -->\n", "<!-- end of results -->\n"
TARGET_OVER_BOUND_PERCENT, TARGET_CPU_PERCENT = 15.0, 97.0


@dataclass(frozen=True)
class Result:
    """One policy, first and second halves."""

    name: str
    ours: bool
    windows: tuple[Windows, Windows]
    cpu_percent: tuple[float, float]

    @property
    def all_windows(self) -> Windows:
        first, second = self.windows
        return Windows([*first.needed, *second.needed], [*first.bounds, *second.bounds])


@dataclass(frozen=True)
class Variation:
    """One policy or one changed constant, second halves only."""

    name: str
    over_bound_percent: float
    cpu_percent: float
    further_percent: float


def write(docs: Path, results: Sequence[Result], variations: Sequence[Variation]) -> None:
    """Replaces the part between the two markers of docs/packing.md, and docs/packing.svg."""
    page = docs / "packing.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    block = "\n".join([stamp(), "", _main_table(results), "", _variations_table(variations), ""])
    page.write_text(before + BEGIN + "\n" + block + "\n" + END + after)
    _plot(docs / "packing.svg", results)


def stamp() -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    return f"Measured on {date.today()}, commit {commit.stdout.strip() or 'unknown'}, {machine}."


def _main_table(results: Sequence[Result]) -> str:
    lines = [
        "| policy | nodes over bound, 1st half | **2nd half** | all | worst window | CPU allocated, 1st half "
        "| **2nd half** |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for r in results:
        name = f"**{r.name}**" if r.ours else r.name
        first, second = (w.over_bound_percent for w in r.windows)
        total = r.all_windows
        lines.append(
            f"| {name} | {first:.1f} % | {second:.1f} % | {total.over_bound_percent:.1f} % "
            f"| {total.worst_percent:.0f} % | {r.cpu_percent[0]:.1f} % | {r.cpu_percent[1]:.1f} % |"
        )
    return "\n".join(lines)


def _variations_table(variations: Sequence[Variation]) -> str:
    lines = [
        "| `expected` with one constant changed, second halves | nodes over bound | CPU allocated "
        "| from four later starts |",
        "|---|--:|--:|--:|",
    ]
    lines.extend(
        f"| {v.name} | {v.over_bound_percent:.1f} % | {v.cpu_percent:.1f} % | {v.further_percent:.1f} % |"
        for v in variations
    )
    return "\n".join(lines)


def _point(result: Result) -> tuple[float, float]:
    return result.windows[1].over_bound_percent, result.cpu_percent[1]


def _neighbours(results: Sequence[Result]) -> list[list[Result]]:
    """Results whose marks would touch; their names are written as one list."""
    groups: list[list[Result]] = []
    for r in sorted(results, key=lambda r: _point(r)[0]):
        x, y = _point(r)
        for group in groups:
            near_x, near_y = _point(group[-1])
            if x / near_x < 1.3 and abs(y - near_y) < 2:
                group.append(r)
                break
        else:
            groups.append([r])
    return groups


def _plot(path: Path, results: Sequence[Result]) -> None:
    matplotlib.use("Agg")
    # The same numbers give the same file.
    plt.rcParams.update({"svg.hashsalt": "packing", "font.size": 10})
    figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
    axes.axvspan(5, TARGET_OVER_BOUND_PERCENT, ymin=0, ymax=1, color="#2e7d32", alpha=0.06, lw=0)
    axes.axhspan(TARGET_CPU_PERCENT, 101, color="#2e7d32", alpha=0.06, lw=0)
    for group in _neighbours(results):
        for line, r in enumerate(group):
            x, y = _point(r)
            colour = "#c62828" if r.name.endswith("expected") else "#1565c0" if r.ours else "#757575"
            axes.plot(x, y, marker="o" if r.ours else "s", ms=9 if r.ours else 6, color=colour)
            axes.annotate(
                r.name,
                _point(group[0]),
                xytext=(0, -18 - 11 * line),
                textcoords="offset points",
                color=colour,
                ha="right" if x > 100 else "left",
                fontsize=8,
            )
    axes.set_xscale("log")
    axes.set_xlim(5, 400)
    axes.set_ylim(78, 101)
    ticks = [5, 10, 20, 50, 100, 200, 400]
    axes.set_xticks(ticks, [f"{t} %" for t in ticks])
    axes.minorticks_off()
    axes.set_xlabel("nodes used over the lower bound, wagap windows (less is better)")
    axes.set_ylabel("CPU allocated on 400 nodes,\nbatch list, % (more is better)")
    axes.grid(alpha=0.25)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
