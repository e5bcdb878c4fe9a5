"""Runs of both schedulers in turn, with progress: what the machine does meanwhile happens to both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.bench.runs import KUBE, WHOLEPOD, Run, measure
from tests.bench.workloads import Shape

Pair = tuple[Run, Run]
"""kube-scheduler's run, and Wholepod's."""


def alternating(
    shapes: Mapping[str, Shape], pairs: int, console: Console, *, told: Callable[[Run], str]
) -> Iterator[tuple[Shape, Sequence[Pair]]]:
    """Each workload with so many pairs of runs; `told` is the line that is printed about a run."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=2 * pairs * len(shapes))
        for name, shape in shapes.items():
            measured = []
            for _ in range(pairs):
                pair = []
                for scheduler in (KUBE, WHOLEPOD):
                    progress.update(task, description=f"{name}: {scheduler}")
                    run = measure(scheduler, shape)
                    pair.append(run)
                    progress.console.print(f"{name}: {scheduler}: {told(run)}")
                    progress.advance(task)
                measured.append((pair[0], pair[1]))
            yield shape, measured
