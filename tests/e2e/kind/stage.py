"""The cluster that is tested on, with the image and the chart installed, and what all tests ask of it."""

from __future__ import annotations

import base64
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import yaml

from tests.chart.helm import NAMESPACE, RELEASE, helm
from tests.chart.schema import CHART
from tests.cluster import Api, ApiError, ClusterError, sources
from tests.cluster.assets import Report
from tests.cluster.kind import cluster, engine
from tests.cluster.kind.images import Settings, write_scratch_image
from tests.e2e.kind import manifests
from tests.e2e.kind.witness import OURS, Witness
from tests.image import base, build
from tests.integration.observer import condition, node_of

Json = dict[str, Any]
T = TypeVar("T")

IMAGE = "localhost/wholepod:e2e"
ACCOUNT = "e2e"
PATIENCE_S = 120.0
"""Far beyond any normal wait: a busy machine must not fail a test, a missing deed must."""
_POLL_S = 0.2


class NotSoError(Exception):
    """Something that has to be is not; the text says what."""


def expect(holds: object, otherwise: str) -> None:
    """Raises NotSoError."""
    if not holds:
        raise NotSoError(otherwise)


class Stage:
    """A context manager; `server`, `api`, `ca_file` and `token` are the cluster administrator's."""

    def __init__(self, report: Report) -> None:
        found = engine.find()
        if found is None:
            raise ClusterError("no Docker engine answers: make kind-up")
        self.engine = found
        self._report = report
        self._stack = ExitStack()
        config = yaml.safe_load(cluster.kubeconfig().read_text())["clusters"][0]["cluster"]
        self.server: str = config["server"]
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="wholepod-e2e-")))
        self.ca_file = self._folder / "ca.crt"
        authority = base64.b64decode(config["certificate-authority-data"]).decode()
        self.ca_file.write_text(authority)
        self.token = _administrator()
        self.api = Api(self.server, ca_pem=authority, token=self.token)
        self.witness = Witness(self)

    def __enter__(self) -> Self:
        self._stack.enter_context(self.api)
        self._stack.enter_context(self.witness)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    # --- what is installed ---

    def build(self) -> str:
        """The image, from this folder's sources; what it was built on."""
        return build.build(IMAGE, on=base.default(), report=self._report).base

    def load(self) -> None:
        """Put the image, and that of the tests' pods, into all nodes."""
        archive = self._folder / "image.tar"
        self.engine.docker("save", "--output", str(archive), IMAGE, doing="Saving the image")
        cluster.load(archive)
        archive.unlink()
        program = sources.find(["workload"], report=self._report)["workload"].path
        settings = Settings(entrypoint=[manifests.WORKLOAD])
        write_scratch_image(archive, manifests.IMAGE, {manifests.WORKLOAD: program}, settings)
        cluster.load(archive)

    def helm(self, verb: str, *arguments: str | Path) -> str:
        """helm on this cluster and this release."""
        where = (f"--kubeconfig={cluster.kubeconfig()}", f"--namespace={NAMESPACE}")
        return helm(verb, RELEASE, *arguments, *where)

    def install(self) -> None:
        """Install the chart, or bring what is installed up to date, and wait until all replicas are ready."""
        repository, _, tag = IMAGE.partition(":")
        # Another image under the same tag is not a change that Kubernetes would see.
        identity = self.engine.docker("image", "inspect", "--format={{.Id}}", IMAGE, doing="Asking for it")
        self.helm(
            "upgrade",
            CHART,
            "--install",
            "--create-namespace",
            f"--set=image.repository={repository},image.tag={tag},image.pullPolicy=Never",
            f"--set=podAnnotations.image={identity.strip().replace(':', '-')}",
            "--wait",
            "--timeout=5m",
        )

    # --- what tests ask ---

    @contextmanager
    def namespace(self, name: str) -> Iterator[str]:
        """One of a test's own, with all that is in it gone afterwards."""
        cluster.kubectl("create", "namespace", name)
        try:
            until(lambda: self.has(f"/api/v1/namespaces/{name}/serviceaccounts/default"), "its account")
            yield name
        finally:
            cluster.kubectl("delete", "namespace", name, f"--timeout={PATIENCE_S:.0f}s")

    def has(self, path: str) -> bool:
        """Whether there is an object at that path."""
        try:
            self.api.get(path)
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        return True

    def apply(self, *objects: Json) -> None:
        """Create objects, in order."""
        documents = "\n---\n".join(json.dumps(item) for item in objects)
        cluster.kubectl("create", "--filename=-", stdin=documents.encode())

    def pods(self, namespace: str) -> list[Json]:
        """As the witness sees them, by name."""
        pods = self.witness.ask(
            lambda seen: [p for p in seen.values() if p["metadata"]["namespace"] == namespace]
        )
        return sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))

    def running(self, namespace: str, count: int, what: str) -> list[Json]:
        """Wait until that many pods of a namespace run with all containers ready; they are returned."""

        def ready() -> list[Json]:
            alive = [p for p in self.pods(namespace) if "deletionTimestamp" not in p["metadata"]]
            good = [p for p in alive if condition(p, "Ready").get("status") == "True"]
            return good if len(good) == count else []

        return self.until(ready, f"{count} pods of {what} run", namespace)

    def ended(self, namespace: str, phase: str) -> Json:
        """Wait until a pod of the namespace has come to an end, which has to be this one."""

        def over() -> list[Json]:
            return [p for p in self.pods(namespace) if p["status"].get("phase") in ("Succeeded", "Failed")]

        found = self.until(over, f"a pod ends as {phase}", namespace)[0]
        ended = found["status"]["phase"]
        expect(ended == phase, f"{found['metadata']['name']} is {ended}, not {phase}")
        return found

    def until(self, get: Callable[[], T], what: str, namespace: str) -> T:
        """`until`, with a look at the namespace's pods if it does not come true."""
        try:
            return until(get, what)
        except NotSoError as error:
            table = cluster.kubectl("get", "pods", "--output=wide", f"--namespace={namespace}")
            events = cluster.kubectl("get", "events", f"--namespace={namespace}", "--sort-by=.lastTimestamp")
            raise NotSoError(f"{error}\n{table}{events}") from None

    def placed_by(self, pods: Sequence[Json], scheduler: str = OURS) -> None:
        """Each of these pods has an event that says who placed it, and it is that one."""
        for pod in pods:
            name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
            path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"

            def who(path: str = path, name: str = name) -> set[str]:
                selector = f"reason=Scheduled,regarding.name={name}"
                return {e["reportingController"] for e in self.api.items(path, fieldSelector=selector)}

            by = self.until(who, f"there is an event of {name}'s placement", namespace)
            expect(by == {scheduler}, f"{name} was placed by {', '.join(by)}, not by {scheduler}")

    def exec(self, pod: Json, container: str, *command: str) -> str:
        """What a command inside a container prints."""
        where = (f"--namespace={pod['metadata']['namespace']}", f"--container={container}")
        return cluster.kubectl("exec", str(pod["metadata"]["name"]), *where, "--", *command)

    def in_node(self, node: str, *command: str, stdin: bytes | None = None) -> str:
        """What a command on a node prints."""
        return self.engine.docker("exec", "--interactive", node, *command, doing=f"In {node}", stdin=stdin)

    def replicas(self) -> list[Json]:
        """The scheduler's pods that are ready."""
        labels = {"app.kubernetes.io/instance": RELEASE, "app.kubernetes.io/component": "scheduler"}
        return [
            pod
            for pod in self.pods(NAMESPACE)
            if labels.items() <= pod["metadata"]["labels"].items()
            and "deletionTimestamp" not in pod["metadata"]
            and condition(pod, "Ready").get("status") == "True"
        ]

    def holder(self, namespace: str = NAMESPACE, name: str = RELEASE) -> str:
        """Who holds a lease; "" for nobody."""
        path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"
        return self.api.get(path)["spec"].get("holderIdentity") or "" if self.has(path) else ""

    def leader(self) -> Json:
        """The scheduler's pod that holds the lease."""

        def find() -> Json | None:
            name = self.holder().rpartition("_")[0]
            return next((pod for pod in self.replicas() if pod["metadata"]["name"] == name), None)

        found = self.until(find, "one leads", NAMESPACE)
        assert found is not None
        return found


def until(get: Callable[[], T], what: str, *, timeout_s: float = PATIENCE_S) -> T:
    """The first true value of `get`. Raises NotSoError."""
    deadline = time.monotonic() + timeout_s
    while not (value := get()):
        expect(time.monotonic() < deadline, f"not in time ({timeout_s:.0f} s): {what}")
        time.sleep(_POLL_S)
    return value


def where(pods: Sequence[Json]) -> str:
    """How many are on which node, for people."""
    counts: dict[str, int] = {}
    for pod in pods:
        counts[node_of(pod)] = counts.get(node_of(pod), 0) + 1
    return ", ".join(f"{count} on {node.removeprefix('wholepod-')}" for node, count in sorted(counts.items()))


def _administrator() -> str:
    """The token of an account that may do everything: kind's kubeconfig has a certificate instead."""
    account = f"serviceaccount/{ACCOUNT}"
    with _may_exist():
        cluster.kubectl("create", *account.split("/"), "--namespace=kube-system")
    with _may_exist():
        roles = ("--clusterrole=cluster-admin", f"--serviceaccount=kube-system:{ACCOUNT}")
        cluster.kubectl("create", "clusterrolebinding", ACCOUNT, *roles)
    return cluster.kubectl("create", "token", ACCOUNT, "--namespace=kube-system", "--duration=12h").strip()


@contextmanager
def _may_exist() -> Iterator[None]:
    try:
        yield
    except ClusterError as error:
        if "already exists" not in str(error):
            raise
