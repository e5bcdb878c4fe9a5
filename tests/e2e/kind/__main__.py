"""`python -m tests.e2e.kind`: installs Wholepod on the kind cluster (`make kind-up`), and tries everything.

Exit codes: 0 all is as it should be, 1 something is not, 3 there is no cluster, or nothing to install on it.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable

import click

from tests.chart.helm import NAMESPACE, HelmError
from tests.cluster import ClusterError
from tests.cluster.kind import cluster
from tests.cluster.progress import plain_report
from tests.e2e.kind.checks import CHECKS
from tests.e2e.kind.failover import failovers
from tests.e2e.kind.stage import Stage
from tests.e2e.kind.static_pod import in_kube_schedulers_place

ALL = (
    *CHECKS,
    ("The leader is lost", failovers),
    ("In kube-scheduler's place", in_kube_schedulers_place),
)
LOG_LINES = 40


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("-k", "wanted", metavar="TEXT", default="", help="Only what has TEXT in its title.")
def main(wanted: str) -> None:
    """Install Wholepod on the kind cluster, and try it there with real containers."""
    chosen = [(title, check) for title, check in ALL if re.search(wanted, title, re.IGNORECASE)]
    if not chosen:
        raise click.UsageError(f"nothing has {wanted!r} in its title")
    try:
        stage = Stage(plain_report())
    except (ClusterError, FileNotFoundError) as error:
        click.echo(f"Error: there is no kind cluster (make kind-up): {error}", err=True)
        sys.exit(3)
    failed = []
    with stage:
        try:
            shown("Image", stage.build)
            shown("Image loaded into all nodes", stage.load)
            shown("Chart installed", stage.install)
            shown("helm test", lambda: stage.helm("test") and None)
        except (ClusterError, HelmError) as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(3)
        for title, check in chosen:
            try:
                shown(title, lambda check=check: check(stage))  # type: ignore[misc]
            except Exception as error:
                failed.append(title)
                click.echo(f"FAIL       {title}\n{_indented(f'{type(error).__name__}: {error}')}")
        problems = stage.witness.problems
    click.echo(
        f"Of all pods, {len(stage.witness.bound_at)} were placed by Wholepod; "
        + ("none was moved, over capacity or turned away by a kubelet" if not problems else "but")
    )
    for problem in problems:
        click.echo(f"  {problem}")
    if failed or problems:
        selector = "--selector=app.kubernetes.io/name=wholepod"
        where = (f"--namespace={NAMESPACE}", selector, "--prefix", f"--tail={LOG_LINES}")
        click.echo(_indented(cluster.kubectl("logs", *where)))
        sys.exit(1)


def shown(title: str, do: Callable[[], str | None]) -> None:
    """Do it, and say how long that took and what came of it."""
    started = time.monotonic()
    answer = do()
    click.echo(f"ok  {time.monotonic() - started:5.0f} s  {title}" + (f": {answer}" if answer else ""))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


if __name__ == "__main__":
    main(prog_name="python -m tests.e2e.kind")
