"""`python -m tests.cluster`: control planes for people, in the background."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click
import msgspec
from rich.console import Console
from rich.table import Table

from tests.cluster import planes, sources
from tests.cluster.api import Api
from tests.cluster.assets import PROGRAMS, TOOLS
from tests.cluster.errors import ClusterError
from tests.cluster.progress import live_report

ANSWERED_NO, UNUSABLE = 1, 3

out = Console()
err = Console(stderr=True)


class NodeGroupType(click.ParamType[planes.NodeGroup]):
    """COUNT:CPU:MEMORY, as in 100:4:32Gi."""

    name = "COUNT:CPU:MEMORY"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> planes.NodeGroup:
        parts = str(value).split(":")
        if len(parts) != 3 or not parts[0].isdecimal() or not all(parts):
            self.fail(f"{value!r} is not COUNT:CPU:MEMORY (example: 100:4:32Gi)", param, ctx)
        return planes.NodeGroup(int(parts[0]), *parts[1:])


class SwitchType(click.ParamType[tuple[str, bool]]):
    """NAME=true or NAME=false; a bare NAME means true."""

    name = "NAME[=BOOL]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, bool]:
        name, _, state = str(value).partition("=")
        if not name or state not in ("", "true", "false"):
            self.fail(f"{value!r} is not NAME, NAME=true or NAME=false", param, ctx)
        return name, state != "false"


Command = Callable[..., None]


class NameType(click.ParamType[str]):
    """A name that can be a folder's."""

    name = "NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", str(value)) is None:
            self.fail(f"{value!r} is not a name of lower-case letters, digits and dashes", param, ctx)
        return str(value)


def name_option(command: Command) -> Command:
    return click.option(
        "--name", type=NameType(), default="default", show_default=True, help="Which control plane."
    )(command)


def output_option(command: Command) -> Command:
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="For people or for programs.",
    )(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Real Kubernetes control planes on this machine, for trying things out.

    \b
    etcd, kube-apiserver and kube-controller-manager on loopback, started in seconds; no Docker.
        python -m tests.cluster up --nodes 10:4:32Gi
        export KUBECONFIG=$(python -m tests.cluster kubeconfig)
        kubectl get nodes
        python -m tests.cluster down

    \b
    The programs come from WHOLEPOD_ASSETS or KUBEBUILDER_ASSETS (a folder), PATH, the cache, or are
    built from source with Go (once, some minutes). WHOLEPOD_KUBERNETES=1.36 picks an older minor.
    Exit codes: 0 done, 1 no such control plane, 2 usage, 3 a program could not be had or did not start.
    """


@main.command()
@name_option
@output_option
@click.option(
    "--nodes",
    "groups",
    type=NodeGroupType(),
    multiple=True,
    help="Create nodes of this size; may be repeated.",
)
@click.option(
    "--kwok/--no-kwok",
    default=None,
    help="Run kwok, which keeps nodes ready and runs pods bound to them.  [default: with --nodes]",
)
@click.option("--scheduler", is_flag=True, help="Run kube-scheduler as well.")
@click.option(
    "--controller-manager/--no-controller-manager",
    default=True,
    show_default=True,
    help="Run kube-controller-manager.",
)
@click.option(
    "--feature-gate", "gates", type=SwitchType(), multiple=True, help="Switch a Kubernetes feature gate."
)
@click.option(
    "--api",
    "apis",
    type=SwitchType(),
    multiple=True,
    help="Serve an API group or version (kube-apiserver's --runtime-config).",
)
def up(
    name: str,
    output: str,
    groups: tuple[planes.NodeGroup, ...],
    kwok: bool | None,
    scheduler: bool,
    controller_manager: bool,
    gates: tuple[tuple[str, bool], ...],
    apis: tuple[tuple[str, bool], ...],
) -> None:
    """Start a control plane in the background and wait until it is ready."""
    options = planes.Options(
        controller_manager=controller_manager,
        scheduler=scheduler,
        kwok=bool(groups) if kwok is None else kwok,
        nodes=groups,
        feature_gates=dict(gates),
        runtime_config=dict(apis),
    )
    with errors_shown(UNUSABLE), live_report(err) as report:
        record = planes.up(name, options, report=report)
    if output == "json":
        print_json(msgspec.to_builtins(record))
        return
    out.print(f"Control plane [bold]{name}[/] is up at {record.server}")
    out.print(f"  export KUBECONFIG={record.kubeconfig}", soft_wrap=True)
    out.print("  python -m tests.cluster down" + ("" if name == "default" else f" --name {name}"))


@main.command()
@name_option
@click.option("--all", "everything", is_flag=True, help="Stop all of them.")
def down(name: str, everything: bool) -> None:
    """Stop a control plane and remove its data."""
    names = [record.name for record in planes.records()] if everything else [name]
    with errors_shown(ANSWERED_NO):
        for each in names:
            planes.down(each)
            out.print(f"Control plane [bold]{each}[/] is gone")


@main.command()
@output_option
def status(output: str) -> None:
    """List the control planes: what runs, and what is in them."""
    rows = [describe(record) for record in planes.records()]
    if output == "json":
        print_json(rows)
        return
    if not rows:
        out.print("No control plane is up. Start one: python -m tests.cluster up")
        return
    columns = ("name", "state", "server", "nodes", "pods")
    table = Table(*columns, "programs", box=None, padding=(0, 2, 0, 0))
    for row in rows:
        cells = ("-" if row[column] is None else str(row[column]) for column in columns)
        table.add_row(*cells, "\n".join(row["programs"]))
    out.print(table)


@main.command()
@name_option
@output_option
def kubeconfig(name: str, output: str) -> None:
    """Print the path of the administrator's kubeconfig."""
    with errors_shown(ANSWERED_NO):
        path = planes.find(name).kubeconfig
    if output == "json":
        print_json({"name": name, "kubeconfig": path})
    else:
        click.echo(path)


@main.command()
@click.argument("names", nargs=-1, type=click.Choice((*PROGRAMS, *TOOLS)))
@output_option
def programs(names: tuple[str, ...], output: str) -> None:
    """Find programs, building what is missing (all, if none are named), and say where they are."""
    with errors_shown(UNUSABLE), live_report(err) as report:
        found = sources.find(names or (*PROGRAMS, *TOOLS), report=report).values()
    if output == "json":
        print_json([{"name": item.name, "path": str(item.path), "source": item.source} for item in found])
        return
    for item in found:
        click.echo(f"{item.name:24} {item.source:10} {item.path}")


@main.command(hidden=True)
@click.argument("name")
@click.argument("options")
def hold(name: str, options: str) -> None:
    """Own a control plane until SIGTERM (what `up` leaves in the background)."""
    try:
        planes.hold(name, msgspec.json.decode(options, type=planes.Options))
    except ClusterError as error:
        click.echo(str(error), err=True)  # `up` reads it, and says it as its own
        sys.exit(UNUSABLE)


def describe(record: planes.Record) -> dict[str, Any]:
    """A plane as `status` shows it; counts are None when the API server does not answer."""
    counts: dict[str, int | None] = {"nodes": None, "pods": None}
    running = {name: pid for name, pid in record.programs.items() if planes.start_ticks(pid) is not None}
    state = "dead" if not record.alive else "ready" if running == record.programs else "damaged"
    if "kube-apiserver" in running:
        try:
            with Api.from_kubeconfig(Path(record.kubeconfig)) as api:
                counts = {plural: api.count(f"/api/v1/{plural}") for plural in counts}
        except OSError:
            state = "unreachable"
    return {
        "name": record.name,
        "state": state,
        "server": record.server,
        "kubeconfig": record.kubeconfig,
        "age_s": time.time() - record.started_unix_s,
        **counts,
        "programs": running,
    }


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


@contextmanager
def errors_shown(code: int) -> Iterator[None]:
    """Turn a ClusterError into a message and an exit code."""
    try:
        yield
    except ClusterError as error:
        fail(str(error), code)


def fail(message: str, code: int) -> NoReturn:
    err.print(f"Error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main(prog_name="python -m tests.cluster")
