"""`make monitoring`: dashboards and rules on a real Prometheus that scrapes a real Wholepod.

Fails if an expression of a panel returns nothing, if the metrics are not what promtool likes, or if a large
cluster has too many series. Draws the dashboards for docs/.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.cluster import ControlPlane, node_manifest, pod_manifest
from tests.cluster.errors import ClusterError
from tests.integration.controlling import with_crd
from tests.integration.harness import Controller, Scheduler, eventually
from tests.monitoring import pictures, scene
from tests.monitoring.expressions import RULES, of_dashboards, of_rules
from tests.monitoring.prometheus import Prometheus, promtool

UNIT_TESTS = RULES.with_name("rules_test.yaml")
LARGE_NODES, LARGE_PODS, MAX_SERIES = 1_000, 10_000, 2_000
CONFIGURATION = """\
apiVersion: wholepod.io/v1alpha1
kind: SchedulerConfiguration
profiles:
- schedulerName: wholepod
clientConnection: {qps: 1000, burst: 2000}
"""


class Failed(Exception):
    """Something is not as it should be; the text is for people."""


def check_rules() -> None:
    for arguments in (("check", "rules", RULES), ("test", "rules", UNIT_TESTS)):
        done = promtool(*arguments)
        if done.returncode:
            raise Failed(f"promtool {arguments[0]} rules: {done.stdout}{done.stderr}")
    click.echo("rules: checked, and their unit tests pass")


def check_metrics(scheduler: Scheduler) -> None:
    """The text that is scraped, by promtool's eye."""
    done = promtool("check", "metrics", stdin=scheduler.text("/metrics"))
    if done.returncode or done.stdout or done.stderr:
        raise Failed(f"promtool check metrics: {done.stdout}{done.stderr}")
    click.echo("metrics: promtool has nothing to say")


def check_expressions(prometheus: Prometheus) -> None:
    """Each panel has data; that nothing was seen yet (NaN) is none. Alerts have data in trouble alone, for
    which there are the unit tests: that they are answered is enough."""
    panels, alerts = [*of_dashboards()], [*of_rules()]
    silent = [
        f"{expression.where}: {expression.text}"
        for expression in panels
        if not any(math.isfinite(float(s["value"][1])) for s in prometheus.query(expression.text))
    ]
    for alert in alerts:
        prometheus.query(alert.text)
    if silent:
        raise Failed("no data:\n  " + "\n  ".join(silent))
    click.echo(f"expressions: data for all {len(panels)} of panels, an answer to all {len(alerts)} of alerts")


def busy(folder: Path, docs: Path | None) -> None:
    """Some gangs and preemptions, seen through the dashboards."""
    with ControlPlane(controller_manager=False) as plane:
        with_crd(plane)
        configuration = folder / "wholepod.yaml"
        configuration.write_text(CONFIGURATION)
        with (
            Scheduler(
                f"--config={configuration}", kubeconfig=plane.kubeconfig, log=folder / "log"
            ) as scheduler,
            Controller(
                f"--config={configuration}", kubeconfig=plane.kubeconfig, log=folder / "controller.log"
            ) as controller,
            Prometheus(
                folder,
                {
                    job: process.url.removeprefix("http://")
                    for job, process in (("wholepod", scheduler), ("wholepod-controller", controller))
                },
            ) as prometheus,
        ):
            start = time.time()
            scene.play(plane, scheduler)
            for process in (scheduler, controller):
                check_metrics(process)
            check_expressions(prometheus)
            if docs is not None:
                pictures.draw(prometheus, docs, start=start, end=time.time())
                click.echo(f"pictures: written to {docs}")


def large(folder: Path) -> None:
    """How many series a scrape has when all is large."""
    with ControlPlane(controller_manager=False) as plane:
        plane.api.create_many(
            node_manifest(f"node-{n:04}", cpu="16", memory="64Gi") for n in range(LARGE_NODES)
        )
        configuration = folder / "wholepod.yaml"
        configuration.write_text(CONFIGURATION)
        with Scheduler(
            f"--config={configuration}", kubeconfig=plane.kubeconfig, log=folder / "large.log"
        ) as scheduler:
            small = _series(scheduler)
            plane.api.create_many(
                pod_manifest(f"pod-{i:05}", {"memory": "256Mi", "cpu": "50m"}) for i in range(LARGE_PODS)
            )

            def all_bound() -> bool:
                return scheduler.metric("wholepod_binds_total", outcome="Bound") >= LARGE_PODS

            eventually(all_bound, "all pods are bound", timeout_s=900)
            series = _series(scheduler)
    click.echo(f"series: {small} without pods, {series} with {LARGE_PODS} on {LARGE_NODES} nodes")
    if series >= MAX_SERIES:
        raise Failed(f"{series} series; fewer than {MAX_SERIES} are wanted")


def _series(scheduler: Scheduler) -> int:
    return sum(1 for line in scheduler.text("/metrics").splitlines() if line and not line.startswith("#"))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--docs", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Draw into this folder."
)
@click.option("--only", type=click.Choice(["rules", "busy", "large"]), help="One part alone.")
def main(docs: Path | None, only: str | None) -> None:
    """Try dashboards and rules on a real Prometheus."""
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if only in (None, "rules"):
                check_rules()
            if only in (None, "busy"):
                busy(folder, docs)
            if only in (None, "large"):
                large(folder)
    except (Failed, ClusterError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main(prog_name="python -m tests.monitoring")
