"""`python -m tests.bench.packing --traces DIR`: how well do the objectives of MemoryFit pack, and what do
gangs cost under each strategy?

Prints progress, then writes the tables and the plots of docs/packing.md and docs/gang-costs.md. Exits with 1
when the targets are missed, 2 when a trace can't be read.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from scheduler.core.mix import EPOCH_ARRIVALS, HALF_LIFE_EPOCHS
from scheduler.core.waste import TUNING
from scheduler.plugins.memory_fit import Objective
from tests.bench.packing import gang_report
from tests.bench.packing.gang_costs import measure, scenarios
from tests.bench.packing.measure import (
    Mixes,
    Traces,
    measure_further_starts,
    measure_list,
    measure_windows,
)
from tests.bench.packing.policies import Policy, memory_fit, simple_policies
from tests.bench.packing.report import (
    TARGET_CPU_PERCENT,
    TARGET_OVER_BOUND_PERCENT,
    Result,
    Variation,
    write,
)
from tests.bench.packing.traces import TraceError

OBJECTIVES: tuple[Objective, ...] = ("expected", "tight", "balanced", "spread")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.packing", description=__doc__)
    parser.add_argument("--traces", type=Path, required=True, help="folder of the traces (docs/packing.md)")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where the pages are")
    parser.add_argument("--only", choices=("objectives", "gangs"), help="one of the two questions")
    arguments = parser.parse_args()
    started = time.monotonic()

    def progress(text: str) -> None:
        print(f"{time.monotonic() - started:5.0f} s  {text}", flush=True)

    good = True
    try:
        if arguments.only != "objectives":
            measured = [measure(scenario, progress) for scenario in scenarios(arguments.traces)]
            gang_report.write(arguments.docs, measured)
        if arguments.only != "gangs":
            good = _compare_objectives(Traces.read(arguments.traces), arguments.docs, progress)
    except TraceError as error:
        print(f"{error}; docs/packing.md says where to get it", file=sys.stderr)
        return 2
    return 0 if good else 1


def _compare_objectives(traces: Traces, docs: Path, progress: Callable[[str], None]) -> bool:
    """Writes the page about them; returns whether the targets are met."""
    progress("learning the mixes")
    mixes = Mixes.learn(traces)
    policies = [memory_fit(o) for o in OBJECTIVES] + simple_policies()
    results = []
    for policy in policies:
        result = _measure(policy, traces, mixes)
        results.append(result)
        second = result.windows[1].over_bound_percent
        progress(f"{policy.name}: {second:.1f} % over bound, {result.cpu_percent[1]:.1f} % CPU")
    variations = []
    for name, policy, known in _variations(traces, mixes):
        variation = _vary(name, policy, traces, known)
        variations.append(variation)
        progress(f"{name}: {variation.over_bound_percent:.1f} %, {variation.cpu_percent:.1f} %")
    for objective, result in zip(OBJECTIVES[1:3], results[1:3], strict=True):
        further = measure_further_starts(memory_fit(objective), traces, mixes, traces.task_halves[1])
        name = f"for comparison: objective `{objective}`"
        over_bound, cpu = result.windows[1].over_bound_percent, result.cpu_percent[1]
        variations.append(Variation(name, over_bound, cpu, further))
    write(docs, results, variations)
    expected = results[0]
    good = (
        expected.windows[1].over_bound_percent <= TARGET_OVER_BOUND_PERCENT
        and expected.cpu_percent[1] >= TARGET_CPU_PERCENT
    )
    progress("targets met" if good else "targets MISSED")
    return good


def _measure(policy: Policy, traces: Traces, mixes: Mixes) -> Result:
    first, second = (measure_windows(policy, traces, mixes, part) for part in traces.window_halves)
    cpu = [measure_list(policy, traces, mixes, part)[0] for part in traces.task_halves]
    return Result(policy.name, policy.ours, (first, second), (cpu[0], cpu[1]))


def _variations(traces: Traces, mixes: Mixes) -> Iterator[tuple[str, Policy, Mixes]]:
    yield "as it is", memory_fit("expected"), mixes
    for name, tuning in (
        ("wholeness halved", replace(TUNING, wholeness=TUNING.wholeness / 2)),
        ("wholeness doubled", replace(TUNING, wholeness=TUNING.wholeness * 2)),
        ("power of wholeness 2", replace(TUNING, wholeness_power=TUNING.wholeness_power // 2)),
        ("power of wholeness 8", replace(TUNING, wholeness_power=TUNING.wholeness_power * 2)),
        ("power of scarcity 1", replace(TUNING, scarcity_power=TUNING.scarcity_power // 2)),
        ("power of scarcity 4", replace(TUNING, scarcity_power=TUNING.scarcity_power * 2)),
    ):
        yield name, memory_fit("expected", tuning), mixes
    for epochs in (HALF_LIFE_EPOCHS // 8, HALF_LIFE_EPOCHS * 4):
        yield (
            f"half-life {epochs * EPOCH_ARRIVALS:,} arrivals",
            memory_fit("expected"),
            Mixes.learn(traces, epochs),
        )


def _vary(name: str, policy: Policy, traces: Traces, mixes: Mixes) -> Variation:
    windows, tasks = traces.window_halves[1], traces.task_halves[1]
    return Variation(
        name,
        measure_windows(policy, traces, mixes, windows).over_bound_percent,
        measure_list(policy, traces, mixes, tasks)[0],
        measure_further_starts(policy, traces, mixes, tasks),
    )


if __name__ == "__main__":
    sys.exit(main())
