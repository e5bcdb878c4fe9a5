"""Writes what gangs cost: a table per scenario into docs/gang-costs.md, the plot beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from tests.bench.packing.gang_costs import Measured
from tests.bench.packing.report import BEGIN, END, stamp
from tests.bench.packing.virtual import SINGLES, Outcome, Scenario

_COLOURS = {"atomic": "#1565c0", "hoarding": "#c62828", "optimistic": "#2e7d32", SINGLES: "#757575"}


def write(docs: Path, measured: Sequence[Measured]) -> None:
    """Replaces the part between the two markers of docs/gang-costs.md, and docs/gang-costs.svg."""
    page = docs / "gang-costs.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = [text for each in measured for text in (_title(each.scenario), "", _table(each), "")]
    page.write_text(before + BEGIN + "\n" + "\n".join([stamp(), "", *tables]) + "\n" + END + after)
    _plot(docs / "gang-costs.svg", measured)


def _title(scenario: Scenario) -> str:
    jobs = scenario.jobs
    gangs = sum(len(job.pods) > 1 for job in jobs)
    pods = sum(len(job.pods) for job in jobs)
    nodes = sum(how_many for how_many, _ in scenario.nodes)
    return (
        f"**{scenario.name}**: {len(jobs):,} jobs, of which {gangs:,} are gangs; {pods:,} pods; "
        f"{nodes} nodes with {scenario.memory_bytes / 2**40:.1f} TiB; members come {scenario.apart_s:g} s "
        f"late on average; `hold-timeout` {scenario.hold_timeout}."
    )


def _table(measured: Measured) -> str:
    outcomes, memory_bytes = measured.outcomes, measured.scenario.memory_bytes

    def share(byte_seconds: Callable[[Outcome], float]) -> Callable[[Outcome], str]:
        return lambda o: f"{100 * byte_seconds(o) / (memory_bytes * o.ended_s):.2f} %"

    def waits(waits_s: Callable[[Outcome], Sequence[float]]) -> Callable[[Outcome], str]:
        def text(outcome: Outcome) -> str:
            some = waits_s(outcome)
            if not some:
                return "-"
            return f"{seconds(float(np.mean(some)))} / {seconds(float(np.percentile(some, 99)))}"

        return text

    rows: list[tuple[str, Callable[[Outcome], str]]] = [
        ("gangs wait, mean / 99 %", waits(lambda o: o.gang_waits_s)),
        ("single pods wait, mean / 99 %", waits(lambda o: o.single_waits_s)),
        ("all pods wait, mean / 99 %", waits(lambda o: o.pod_waits_s)),
        ("jobs never bound whole", lambda o: f"{o.unfinished:,}"),
        ("memory at work", share(lambda o: o.work_byte_seconds)),
        ("memory bound in vain", share(lambda o: o.idle_byte_seconds)),
        ("memory held, used", share(lambda o: _held(o, "used"))),
        ("memory held, wasted", share(lambda o: _held(o, "wasted"))),
        ("memory reserved", share(lambda o: o.cost.reserved_byte_seconds.total())),
        ("memory free while wanted", share(lambda o: o.cost.free_byte_seconds.total())),
        ("conflicts", lambda o: f"{o.cost.conflicts.total():,}"),
        ("plans that failed", lambda o: f"{o.cost.infeasible.total():,}"),
        ("rollbacks", lambda o: f"{o.cost.rollbacks.total():,}"),
        ("deadlocks", lambda o: f"{o.cost.deadlocks:,}"),
        ("planning, processor time", lambda o: seconds(sum(o.cost.planning_cpu_s.values()))),
    ]
    head = ["", *(outcome.strategy for outcome in outcomes)]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * len(outcomes)]
    lines += [f"| {name} | " + " | ".join(map(text, outcomes)) + " |" for name, text in rows]
    return "\n".join(lines)


def _held(outcome: Outcome, how: str) -> int:
    return sum(n for (_, ended), n in outcome.cost.held_byte_seconds.items() if ended == how)


def seconds(value: float) -> str:
    """In the unit that suits."""
    if value >= 3600:
        return f"{value / 3600:.1f} h"
    return f"{value:.0f} s" if value >= 100 else f"{value:.1f} s"


def _plot(path: Path, measured: Sequence[Measured]) -> None:
    matplotlib.use("Agg")
    # The same numbers give the same file.
    plt.rcParams.update({"svg.hashsalt": "gang-costs", "font.size": 9})
    figure, axes = plt.subplots(2, len(measured), figsize=(9, 6.4), layout="constrained", squeeze=False)
    for column, each in enumerate(measured):
        _plot_waits(axes[0][column], each)
        _plot_memory(axes[1][column], each)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _plot_waits(axes: Axes, measured: Measured) -> None:
    for outcome in measured.outcomes:
        waits = np.sort(np.maximum(outcome.gang_waits_s, 0.5))
        gangs = sum(len(job.pods) > 1 for job in measured.scenario.jobs)
        shares = 100 * np.arange(1, len(waits) + 1) / gangs
        style = "--" if outcome.strategy == SINGLES else "-"
        axes.step(
            waits, shares, style, where="post", color=_COLOURS[outcome.strategy], label=outcome.strategy
        )
    axes.set_xscale("log")
    axes.set_title(measured.scenario.name)
    axes.set_xlabel("wait of a gang once it exists, s (½: at once)")
    axes.set_ylabel("gangs bound by then, %")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="lower right")


def _plot_memory(axes: Axes, measured: Measured) -> None:
    parts: list[tuple[str, str, Callable[[Outcome], float]]] = [
        ("held, wasted", "#c62828", lambda o: _held(o, "wasted")),
        ("held, used", "#ef9a9a", lambda o: _held(o, "used")),
        ("reserved", "#6a1b9a", lambda o: o.cost.reserved_byte_seconds.total()),
        ("free while wanted", "#90caf9", lambda o: o.cost.free_byte_seconds.total()),
    ]
    outcomes = [outcome for outcome in measured.outcomes if outcome.strategy != SINGLES]
    left = np.zeros(len(outcomes))
    for name, colour, byte_seconds in parts:
        total = np.array([measured.scenario.memory_bytes * o.ended_s for o in outcomes], np.float64)
        shares = 100 * np.array([byte_seconds(o) for o in outcomes], np.float64) / total
        axes.barh([o.strategy for o in outcomes], shares, left=left, color=colour, label=name, height=0.6)
        left += shares
    axes.invert_yaxis()
    axes.set_xlabel("memory of the cluster kept or left idle for gangs, %")
    axes.grid(alpha=0.25, axis="x")
    axes.legend(fontsize=8)
