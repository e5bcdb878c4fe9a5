"""What the extender costs kube-scheduler: latency per pod by itself, and pods a second with it and without.

Latency: real pods are asked about as kube-scheduler asks (one connection, nodes in another order each time),
filter and then prioritize, and then bound to the best node, so that something has changed for the next one.
Throughput: pods wait when kube-scheduler starts; runs alternate, and ratios are of pairs.
"""

from __future__ import annotations

import http.client
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import click
from rich.console import Console

from tests.bench.runs import setting
from tests.cluster import ControlPlane, node_manifest, pod_manifest
from tests.integration.extending import Extender, asking, start_kube_scheduler
from tests.integration.observer import Observer, bound

REPORT = Path(__file__).parents[2] / "docs" / "reports" / "extender.md"
NAME = "default-scheduler"
SIZES = (100, 1000, 5000)
KINDS = (
    {"memory": "500Mi", "cpu": "100m"},
    {"memory": "1Gi", "cpu": "250m"},
    {"memory": "3Gi", "cpu": "500m"},
)
BOUND_MS = 5.0
"""Of the 99th percentile at 5,000 nodes with names only, on an idle machine."""
Json = dict[str, Any]


class Latency(NamedTuple):
    nodes: int
    cached: bool
    filter_ms: list[float]
    both_ms: list[float]

    @property
    def row(self) -> str:
        mode = "names" if self.cached else "node objects"
        both, one = self.both_ms, self.filter_ms
        return (
            f"| {self.nodes} | {mode} | {statistics.median(one):.2f} | {statistics.median(both):.2f} "
            f"| {statistics.quantiles(both, n=100)[98]:.2f} |"
        )


def latencies(plane: ControlPlane, nodes: int, pods: int, folder: Path) -> Iterator[Latency]:
    """In both modes, on a plane that has the nodes."""
    items = plane.api.get("/api/v1/nodes")["items"]
    for node in items:
        node["metadata"].pop("managedFields", None)
    with Extender(kubeconfig=plane.kubeconfig, log=folder / "extender.log") as extender:
        for cached in (True, False):
            count = pods if cached else max(pods // 10, 20)
            for i in range(count):
                pod = pod_manifest(f"{cached}-{i}".lower(), KINDS[i % len(KINDS)], scheduler_name=NAME)
                plane.api.create(pod)
            listed = plane.api.get("/api/v1/namespaces/default/pods")["items"]
            waiting = [pod for pod in listed if not pod["spec"].get("nodeName")]
            yield _ask(extender.extender_url, waiting, items, cached, nodes)


def _ask(url: str, pods: Sequence[Json], items: list[Json], cached: bool, nodes: int) -> Latency:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    rng, filter_ms, both_ms = random.Random(1), list[float](), list[float]()

    def post(verb: str, body: bytes) -> Any:
        connection.request("POST", f"/{verb}", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content
        return content

    names = [node["metadata"]["name"] for node in items]
    for pod in pods:
        rng.shuffle(names)
        lists = (
            {"NodeNames": names, "Nodes": None} if cached else {"NodeNames": None, "Nodes": {"items": items}}
        )
        body = json.dumps({"Pod": pod, **lists}, separators=(",", ":")).encode()
        begun = time.perf_counter()
        passed = post("filter", body)
        filtered = time.perf_counter()
        scored = post("prioritize", body)
        done = time.perf_counter()
        assert not json.loads(passed)["Error"], passed
        filter_ms.append((filtered - begun) * 1000)
        both_ms.append((done - begun) * 1000)
        best = max(json.loads(scored), key=lambda each: int(each["Score"]))["Host"]
        meta = pod["metadata"]
        binding = {"PodName": meta["name"], "PodNamespace": meta["namespace"], "PodUID": meta["uid"]}
        refused = json.loads(post("bind", json.dumps({**binding, "Node": best}).encode()))["Error"]
        assert not refused, refused
    connection.close()
    return Latency(nodes, cached, filter_ms, both_ms)


def rate(nodes: int, pods: int, *, with_extender: bool, folder: Path) -> float:
    """Pods a second that kube-scheduler binds."""
    with ControlPlane(controller_manager=False) as plane, Observer(plane, "/api/v1/pods") as seen:
        _create_nodes(plane, nodes)
        for i in range(pods):
            plane.api.create(pod_manifest(f"pod-{i}", KINDS[i % len(KINDS)], scheduler_name=NAME))
        seen.wait(lambda found: len(found) == pods, "all pods are there")
        if not with_extender:
            begun = time.perf_counter()
            plane.start_scheduler(qps=5000, burst=5000)
            seen.wait(lambda found: bound(found.values()) == pods, "all pods are bound", timeout_s=900)
            return pods / (time.perf_counter() - begun)
        with Extender(kubeconfig=plane.kubeconfig, log=folder / "throughput.log") as extender:
            begun = time.perf_counter()
            start_kube_scheduler(plane, asking(extender.extender_url))
            seen.wait(lambda found: bound(found.values()) == pods, "all pods are bound", timeout_s=900)
            return pods / (time.perf_counter() - begun)


def _create_nodes(plane: ControlPlane, nodes: int) -> None:
    for i in range(nodes):
        plane.api.create(node_manifest(f"node-{i}", memory="32Gi", cpu="16"))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--sizes", default=",".join(map(str, SIZES)), show_default=True, help="Numbers of nodes.")
@click.option("--asked", default=500, show_default=True, help="Pods asked about per number of nodes.")
@click.option("--nodes", default=1000, show_default=True, help="Of the throughput.")
@click.option("--pods", default=2000, show_default=True, help="Of the throughput.")
@click.option("--pairs", default=3, show_default=True)
@click.option("--report/--no-report", default=True, help=f"Write docs/reports/{REPORT.name}.")
def main(sizes: str, asked: int, nodes: int, pods: int, pairs: int, report: bool) -> None:
    """Measure the extender's latency, and kube-scheduler's throughput with it and without."""
    console = Console()
    head = "| nodes | asked with | filter ms, median | filter + prioritize ms, median | 99th percentile |"
    lines = [head, "|" + " ---: |" * 5]
    rates: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for size in map(int, sizes.split(",")):
            with ControlPlane(controller_manager=False) as plane:
                _create_nodes(plane, size)
                for each in latencies(plane, size, asked, folder):
                    lines.append(each.row)
                    console.print(each.row)
        for _ in range(pairs):
            without = rate(nodes, pods, with_extender=False, folder=folder)
            beside = rate(nodes, pods, with_extender=True, folder=folder)
            rates.append((without, beside))
            console.print(f"{without:.0f} pods/s without, {beside:.0f} with: {beside / without:.2f}")
    rows = [f"| {a:.0f} | {b:.0f} | {b / a:.2f} |" for a, b in rates]
    ratio = f"median ratio {statistics.median(b / a for a, b in rates):.2f}" if rates else "no pairs were run"
    console.print(ratio)
    if report:
        latency, pairs_table = "\n".join(lines), "\n".join(rows)
        how = (
            f"By `make bench-extender`: {asked} pods asked about one by one, a tenth with node objects, "
            "each bound to the best node before the next one. Bound at 5,000 nodes with names, for an idle "
            f"machine: {BOUND_MS:g} ms."
        )
        what = f"kube-scheduler with {pods} pods on {nodes} nodes, pods a second, start-up included; {ratio}:"
        table = f"| without | with | ratio |\n| ---: | ---: | ---: |\n{pairs_table}\n"
        REPORT.write_text(f"# The extender's cost\n\n{setting()}. {how}\n\n{latency}\n\n{what}\n\n{table}")


if __name__ == "__main__":
    main()
