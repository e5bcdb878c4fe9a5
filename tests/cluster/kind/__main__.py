"""`python -m tests.cluster.kind`: the kind cluster for people, and for `make`."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console

from tests.cluster.assets import Report
from tests.cluster.errors import ClusterError
from tests.cluster.kind import cluster, engine
from tests.cluster.progress import live_report

ANSWERED_NO, UNUSABLE = 1, 3

err = Console(stderr=True, highlight=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """A kind cluster of one control plane and three workers: real kubelets, real containers.

    docs/kind.md says what it does to this machine. Exit codes: 0 done, 1 no such cluster, 2 usage,
    3 it could not be had, and the message says what would help.
    """


@main.command()
def up() -> None:
    """Create the cluster; says first what it changes on this machine."""
    with errors_shown(UNUSABLE):
        found = engine.find()
        if found is not None and cluster.exists(found):
            if not answers():
                raise ClusterError("there is a cluster, and it does not answer: make kind-down first")
            with step("kube-proxy"):
                cluster.refresh(found)
            click.echo("The kind cluster is up already")
            return
        prepared = cluster.prepare(found)
        if prepared.node_image is not None:
            click.echo(f"Node image: {prepared.node_image}")
        else:
            click.echo("Node image: made here from Debian's packages, since the registry can't be reached")
        if found is not None:
            click.echo(f"Docker engine: {found.version}, which runs already")
        sentences = prepared.plan.sentences()
        click.echo("This changes on this machine:" if sentences else "This changes nothing on this machine")
        for sentence in sentences:
            click.echo(f"  - {sentence}")
        cluster.up(found, prepared, step)
    click.echo("The kind cluster is up")
    click.echo(f"  export KUBECONFIG={cluster.kubeconfig()}")
    click.echo("  make kind-down")


@main.command()
def down() -> None:
    """Delete the cluster, and undo what `up` has changed."""
    with errors_shown(UNUSABLE):
        stays = cluster.down(step)
    for item in stays:
        click.echo(f"What stays: {item}")
    click.echo("The kind cluster is gone")


@main.command()
@click.argument("archive", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def load(archive: Path) -> None:
    """Put an image, a file as `docker save` writes it, into all nodes."""
    with errors_shown(UNUSABLE):
        cluster.load(archive)


@main.command()
def status() -> None:
    """Say as JSON how the cluster was made and whether it answers; exit code 1 if there is none."""
    done = cluster.record()
    if done is None:
        fail("there is no kind cluster: make kind-up", ANSWERED_NO)
    answer = {"way": done.way, "node_image": done.node_image, "answers": answers()}
    click.echo(json.dumps({**answer, "kubeconfig": str(cluster.kubeconfig())}, indent=2))


@main.command()
def kubeconfig() -> None:
    """Print the path of the administrator's kubeconfig."""
    if not cluster.kubeconfig().exists():
        fail("there is no kind cluster: make kind-up", ANSWERED_NO)
    click.echo(cluster.kubeconfig())


def answers() -> bool:
    """Whether the cluster's API server says that it is ready."""
    try:
        cluster.kubectl("get", "--raw=/readyz", "--request-timeout=10s")
    except ClusterError:
        return False
    return True


@contextmanager
def step(title: str) -> Iterator[Report]:
    """Show what is being done, and at its end how long it took."""
    started = time.monotonic()
    with live_report(err) as report:
        report(title)
        yield report
    click.echo(f"  {time.monotonic() - started:5.0f} s  {title}")


@contextmanager
def errors_shown(code: int) -> Iterator[None]:
    """Turn a ClusterError into a message and an exit code."""
    try:
        yield
    except ClusterError as error:
        fail(str(error), code)


def fail(message: str, code: int) -> NoReturn:
    err.print(f"Error: {message}", style="red", markup=False, soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main(prog_name="python -m tests.cluster.kind")
