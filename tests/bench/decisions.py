"""Decisions per CPU second of the engine alone, on the shapes of `workloads` and of gangs.

No API server, no threads. What the whole program can reach is bounded by this and by what it costs to
watch, bind and tell; a run takes seconds, so this is the bench to look at while working on a plugin.
"""

from __future__ import annotations

import time

import click
import msgspec
from rich.console import Console
from rich.table import Table

from scheduler.api import Namespace, ObjectMeta
from scheduler.api_objects import PodGroup, Service
from scheduler.core.engine import Engine, Verdict
from tests.bench.gang_workloads import GANG_SHAPES
from tests.bench.workloads import MEASURED, SHAPES, Shape, service_manifest
from tests.builders import decode_node, decode_pod, make_engine, make_profile

NAME = "default-scheduler"
_ALL = {**SHAPES, **{f"gangs-{name}": shape for name, shape in GANG_SHAPES.items()}}


def prepare(shape: Shape) -> Engine:
    """An engine that knows all of the shape, the measured pods waiting."""
    engine = make_engine(time.monotonic, make_profile(NAME))
    for name, labels in shape.namespaces().items():
        engine.upsert_namespace(Namespace(metadata=ObjectMeta(name=name, labels=dict(labels))))
    if shape.service:
        engine.upsert_object(msgspec.convert(service_manifest("bench", MEASURED), Service))
    for group in shape.pod_groups():
        engine.upsert_object(msgspec.convert(group, PodGroup))
    for node in shape.node_manifests():
        engine.upsert_node(decode_node(node))
    for manifest in (*shape.earlier_pods(NAME), *shape.measured_pods(NAME)):
        manifest["metadata"]["uid"] = manifest["metadata"]["name"]
        engine.upsert_pod(decode_pod(manifest))
    return engine


def decide_all(engine: Engine) -> int:
    """Decides until nothing is due; returns how many pods were placed."""
    placed = 0
    while (decision := engine.decide()) is not None or engine.gangs.planning:
        placed += decision is not None and decision.verdict is Verdict.PLACED
    return placed


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--shape", "names", multiple=True, type=click.Choice(list(_ALL)), help="Default: all.")
@click.option("--nodes", default=5000, show_default=True)
def main(names: tuple[str, ...], nodes: int) -> None:
    """Measure what decisions cost."""
    table = Table(title=f"Decisions of profile kube on {nodes} nodes")
    for heading in ("shape", "placed", "decisions/CPU s", "ms each"):
        table.add_column(heading, justify="left" if heading == "shape" else "right")
    for name in names or _ALL:
        shape = _ALL[name].scaled(nodes)
        engine = prepare(shape)
        started = time.process_time()
        placed = decide_all(engine)
        spent = time.process_time() - started
        table.add_row(name, str(placed), f"{shape.pods / spent:.0f}", f"{1000 * spent / shape.pods:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
