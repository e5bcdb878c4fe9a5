"""One run of one scheduler on one workload, as all benches against kube-scheduler measure it.

A fresh control plane without kubelets, everything of the workload in the API server, then the scheduler
starts. It is done when the last measured pod is bound and its `Scheduled` event is stored: a scheduler
could otherwise be fast by owing its events. Rates count from the first bind, or eviction if that comes
first, so that a program's start-up does not count. CPU is the whole process tree's and the API server's,
per measured pod.
"""

from __future__ import annotations

import http.client
import itertools
import os
import platform
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from urllib.parse import urlencode, urlsplit

import click
import psutil

from tests.bench.workloads import (
    BEFORE,
    CHURN,
    HIGH,
    HIGH_PRIORITY,
    MEASURED,
    Churn,
    Shape,
    service_manifest,
)
from tests.cluster import ControlPlane, node_manifest
from tests.cluster.api import Api
from tests.cluster.control_plane import API_SERVER, SCHEDULER, environment
from tests.cluster.flags import POD_GROUPS_GATES, POD_GROUPS_SERVED
from tests.cluster.tls import TlsConnection

POLL_S = 0.05
GIVE_UP_AFTER_S = 600.0
SILENCE_S = 20.0
QPS = 5000
_NAME = re.compile(rb'"name":"([^"]+)"')

KUBE, WHOLEPOD, WHOLEPOD_MEMORY = "kube-scheduler", "wholepod (kube)", "wholepod (memory-fit)"
SCHEDULER_NAME = {KUBE: "default-scheduler", WHOLEPOD: "default-scheduler", WHOLEPOD_MEMORY: "wholepod"}


@dataclass(frozen=True)
class Run:
    """Of one scheduler: seconds and CPU seconds for all measured pods."""

    scheduler: str
    pods: int
    seconds: float
    """From the first bind (or eviction) to the last event stored."""
    startup_s: float
    """From the start of the process to that."""
    scheduler_cpu_s: float
    startup_cpu_s: float
    """The part of it that was spent before that."""
    api_server_cpu_s: float

    @property
    def rate(self) -> float:
        return self.pods / self.seconds

    @property
    def rate_from_start(self) -> float:
        """With all that came before the first bind: the process's start, and planning."""
        return self.pods / (self.startup_s + self.seconds)

    @property
    def cpu_ms(self) -> float:
        return 1000 * self.scheduler_cpu_s / self.pods

    @property
    def steady_cpu_ms(self) -> float:
        """Without the start."""
        return 1000 * (self.scheduler_cpu_s - self.startup_cpu_s) / self.pods

    @property
    def api_server_ms(self) -> float:
        return 1000 * self.api_server_cpu_s / self.pods


def measure(scheduler: str, shape: Shape) -> Run:
    """One run of one scheduler on a control plane of its own, which serves PodGroups if there are gangs."""
    with ControlPlane(
        controller_manager=False,
        feature_gates=POD_GROUPS_GATES if shape.gangs else None,
        runtime_config=POD_GROUPS_SERVED if shape.gangs else None,
    ) as plane:
        _fill(plane.api, shape, SCHEDULER_NAME[scheduler])
        api_server = psutil.Process(plane.pids()[API_SERVER])
        with (
            Seen(plane, MEASURED, "pods", "spec.nodeName!=") as bound,
            Seen(plane, MEASURED, "events", "reason=Scheduled") as told,
            Seen(plane, f"{BEFORE}-0", "pods", "", change="DELETED") as evicted,
            _churning(plane.api, shape.churn, SCHEDULER_NAME[scheduler]),
        ):
            before, started = _cpu_s(api_server), time.monotonic()
            process, stop = _start(scheduler, plane)
            startup_cpu_s = 0.0
            try:
                while min(bound.count, told.count) < shape.pods:
                    if process.status() == psutil.STATUS_ZOMBIE:
                        raise click.ClickException(f"{scheduler} ended by itself")
                    if not (bound.count or evicted.count):
                        startup_cpu_s = _cpu_s(process)
                    if time.monotonic() - started > GIVE_UP_AFTER_S:
                        raise click.ClickException(
                            f"{scheduler} bound {bound.count} of {shape.pods} pods of {shape.name} in "
                            f"{GIVE_UP_AFTER_S:.0f} s, and stored {told.count} events"
                        )
                    time.sleep(POLL_S)
                scheduler_cpu_s, api_server_cpu_s = _cpu_s(process), _cpu_s(api_server) - before
            finally:
                stop()
    began = min(bound.first, evicted.first or bound.first)
    return Run(
        scheduler=scheduler,
        pods=shape.pods,
        seconds=max(bound.last, told.last) - began,
        startup_s=began - started,
        scheduler_cpu_s=scheduler_cpu_s,
        startup_cpu_s=startup_cpu_s,
        api_server_cpu_s=api_server_cpu_s,
    )


def setting() -> str:
    """When, of which commit, on what machine, for a report's first line."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit}, {os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, Python {platform.python_version()}, "
        "kube-scheduler 1.37.2"
    )


class Seen:
    """Counts the objects of a namespace that come to match a field selector (or leave), by a watch.

    A watch that ends or is silent for long is opened again, which shows all that match once more: a number
    that no one can reach any more because an event went astray would cost the whole bench.
    """

    def __init__(
        self, plane: ControlPlane, namespace: str, plural: str, selector: str, *, change: str = "ADDED"
    ) -> None:
        self.first, self.last = 0.0, 0.0
        """When (monotonic clock) the first and the last one was seen."""
        self.times: dict[str, float] = {}
        """Name → when (monotonic clock) it was seen."""
        self._server = urlsplit(plane.server)
        self._tls = ssl.create_default_context(cafile=str(plane.ca_file))
        query = urlencode({"watch": "true", "fieldSelector": selector})
        self._path = f"/api/v1/namespaces/{namespace}/{plural}?{query}"
        self._start = f'{{"type":"{change}"'.encode()
        self._headers = {"Authorization": f"Bearer {plane.token}"}
        self._closed = False
        self._thread = threading.Thread(target=self._follow, name=f"watch-{plural}")

    @property
    def count(self) -> int:
        return len(self.times)

    def __enter__(self) -> Seen:
        self._open()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        if self._connection.sock is not None:
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()

    def _open(self) -> None:
        host, port = str(self._server.hostname), self._server.port
        self._connection = TlsConnection(host, port, tls=self._tls, timeout_s=SILENCE_S)
        self._connection.request("GET", self._path, headers=self._headers)
        self._response = self._connection.getresponse()
        if self._response.status != http.client.OK:
            raise click.ClickException(f"watch refused: {self._response.read().decode(errors='replace')}")

    def _follow(self) -> None:
        while True:
            with suppress(OSError):  # also: silent for too long
                while line := self._response.readline():
                    self._take(line)
            if self._closed:
                return
            self._connection.close()
            self._open()

    def _take(self, line: bytes) -> None:
        name = _NAME.search(line)
        if name is None or not line.startswith(self._start) or name[1].decode() in self.times:
            return
        self.last = time.monotonic()
        self.first = self.first or self.last
        self.times[name[1].decode()] = self.last


@contextmanager
def _churning(api: Api, churn: Churn | None, scheduler_name: str) -> Iterator[None]:
    """Lets objects come and go in the background."""
    if churn is None:
        yield
        return
    ended = threading.Event()

    def run() -> None:
        for number in itertools.count():
            if ended.wait(churn.every_s):
                return
            pod = churn.template.manifest(
                f"churn-{number:05}", number, namespace=CHURN, scheduler_name=scheduler_name
            )
            if not churn.recreated:
                api.create(pod)
            elif number % 2 == 0:
                name = pod["metadata"]["name"]
                for manifest in (node_manifest(name, pods=0), pod, service_manifest(name, CHURN)):
                    api.create(manifest)
            else:
                name = f"churn-{number - 1:05}"
                api.delete(f"/api/v1/nodes/{name}")
                for plural in ("pods", "services"):
                    api.delete(f"/api/v1/namespaces/{CHURN}/{plural}/{name}")

    thread = threading.Thread(target=run, name="churn")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _fill(api: Api, shape: Shape, scheduler_name: str) -> None:
    """Everything that is there before the scheduler starts, the measured pods last."""
    for name, labels in shape.namespaces().items():
        metadata = {"name": name, "labels": dict(labels)}
        api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    api.create(
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": HIGH},
            "value": HIGH_PRIORITY,
        }
    )
    if shape.service:
        api.create(service_manifest("bench", MEASURED))
    api.create_many(shape.node_manifests())
    api.create_many(shape.earlier_pods(scheduler_name))
    api.create_many(shape.pod_groups())
    api.create_many(shape.measured_pods(scheduler_name))


def _start(scheduler: str, plane: ControlPlane) -> tuple[psutil.Process, Callable[[], None]]:
    if scheduler == KUBE:
        plane.start_scheduler(qps=QPS, burst=QPS)
        return psutil.Process(plane.pids()[SCHEDULER]), lambda: None
    _compile()
    command = [sys.executable, "-m", "scheduler", "run", "--leader-elect=false"]
    command += ["--scheduler-name", SCHEDULER_NAME[scheduler], "--bind-address", "127.0.0.1:0"]
    command += [f"--kube-api-qps={QPS}", f"--kube-api-burst={QPS}", "--log-level=warning"]
    child = subprocess.Popen(command, env=environment(plane.kubeconfig), start_new_session=True)

    def stop() -> None:
        child.send_signal(signal.SIGTERM)
        child.wait(timeout=30)

    return psutil.Process(child.pid), stop


@cache
def _compile() -> None:
    """Python keeps what it has compiled, as for a program that is installed: a development environment
    may be new, or told not to."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, "-c", "import scheduler.app"], env=kept, check=True)


def _cpu_s(process: psutil.Process) -> float:
    total = 0.0
    for member in (process, *process.children(recursive=True)):
        times = member.cpu_times()
        total += times.user + times.system
    return total
