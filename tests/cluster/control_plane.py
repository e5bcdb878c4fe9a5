"""A real control plane on loopback: etcd, kube-apiserver, and whatever else a test asks for.

Nothing here is a simulation: the programs are Kubernetes' own, started by hand with few flags. Two
choices make it start in about two seconds and leave nothing behind:

- etcd does not sync to disk (the data dies with the plane) and listens on a Unix socket inside the
  plane's private folder, so only the API server has a port;
- the API server signs its own serving certificate, whose key also signs ServiceAccount tokens; users
  come from a static token file. So no certificates are made here, and none expire.

Stopping kills: the data is thrown away, so there is nothing to save. If the owner itself is killed,
the plane's keeper does the same for it (`keeper.py`).
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster import identity, sources
from tests.cluster.api import Api, ApiError
from tests.cluster.assets import Report
from tests.cluster.errors import ClusterError
from tests.cluster.ports import answers, free_port
from tests.cluster.process import Keeper, Program
from tests.cluster.progress import plain_report

START_TIMEOUT_S = 90.0
ADDRESS_ATTEMPTS = 3
KWOK_STAGES = Path(__file__).with_name("kwok-stages.yaml")

ETCD, API_SERVER = "etcd", "kube-apiserver"
CONTROLLER_MANAGER, SCHEDULER, KWOK = "kube-controller-manager", "kube-scheduler", "kwok"

# Of the admission plugins that are on by default, these two need a partner to let a pod through:
# ServiceAccount wants the namespace's account, which the controller manager creates;
# TaintNodesByCondition taints every new node until the node lifecycle controller has seen it ready.
NEEDS_CONTROLLER_MANAGER = "ServiceAccount"
NEEDS_NODE_LIFECYCLE = "TaintNodesByCondition"
NODE_LIFECYCLE_CONTROLLERS = ("node-lifecycle-controller", "taint-eviction-controller")
# It refuses the API server's self-signed certificate, and says so for ever.
TRUST_BUNDLE_CONTROLLER = "kube-apiserver-serving-clustertrustbundle-publisher-controller"
KWOK_LEASE_S = 40  # as long as a kubelet's


class ControlPlane:
    """One embedded control plane; a context manager that starts it and takes it down.

    Args:
        controller_manager: run kube-controller-manager (ServiceAccounts, ReplicaSets, Jobs, garbage
            collection). Without it a plane starts faster and pods need no ServiceAccount.
        scheduler: run kube-scheduler beside whatever is tested.
        kwok: run kwok, which keeps nodes ready and runs and deletes the pods bound to them.
        node_lifecycle: let nodes' conditions count: a new node is tainted until it is seen ready, a node
            that is silent for 40 s is tainted and its pods are evicted. Needs kwok (or nothing renews the
            nodes' leases) and the controller manager. Off, a node can be used as soon as it is created.
        feature_gates: gate → on, for all Kubernetes programs.
        runtime_config: API group or version → served ({"scheduling.k8s.io/v1beta1": True}).
        apiserver_flags: further flags of kube-apiserver; they come last, so they win.
        controller_manager_flags: the same for kube-controller-manager.
        users: further users (name → groups), beside those of `identity.BUILT_IN_USERS`.
        folder: where to keep data and logs; it is created here and removed at the end. Default: a new
            temporary folder.
        report: gets a line now and then while programs are being built.
    """

    def __init__(
        self,
        *,
        controller_manager: bool = True,
        scheduler: bool = False,
        kwok: bool = False,
        node_lifecycle: bool = False,
        feature_gates: Mapping[str, bool] | None = None,
        runtime_config: Mapping[str, bool] | None = None,
        apiserver_flags: Sequence[str] = (),
        controller_manager_flags: Sequence[str] = (),
        users: Mapping[str, Sequence[str]] | None = None,
        folder: Path | None = None,
        report: Report | None = None,
    ) -> None:
        if node_lifecycle and not (controller_manager and kwok):
            raise ValueError("node_lifecycle needs controller_manager and kwok")
        self._node_lifecycle = node_lifecycle
        self._parts = {CONTROLLER_MANAGER: controller_manager, SCHEDULER: scheduler, KWOK: kwok}
        self._feature_gates = dict(feature_gates or {})
        self._runtime_config = dict(runtime_config or {})
        self._apiserver_flags = list(apiserver_flags)
        self._controller_manager_flags = list(controller_manager_flags)
        self._wanted_folder = folder
        self._report = report or plain_report()
        self._assets: dict[str, sources.Asset] = {}
        self._keeper: Keeper | None = None
        self._folder: Path | None = None
        self._port = 0
        self._api: Api | None = None
        self.users = identity.users(users or {})
        self.programs: dict[str, Program] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # What a client needs.

    @property
    def folder(self) -> Path:
        """Where data, logs and kubeconfigs lie."""
        if self._folder is None:
            raise ClusterError("the control plane is not started")
        return self._folder

    @property
    def server(self) -> str:
        """URL of the API server."""
        return f"https://127.0.0.1:{self._port}"

    @property
    def ca_file(self) -> Path:
        """The certificate bundle that the API server's certificate is verified against."""
        return self.folder / "certificates" / "apiserver.crt"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.kubeconfig_for("admin")

    @property
    def token(self) -> str:
        """The administrator's bearer token."""
        return self.users["admin"].token

    @property
    def api(self) -> Api:
        """The administrator's API client; closed with the plane."""
        if self._api is None:
            raise ClusterError("the control plane is not started")
        return self._api

    def kubeconfig_for(self, user: str) -> Path:
        """The kubeconfig of a user: a built-in one ("stranger" may do nothing) or one given as `users`."""
        return self.kubeconfig_with_token(user, self.users[user].token)

    def kubeconfig_with_token(self, name: str, token: str) -> Path:
        """A kubeconfig with any bearer token: a ServiceAccount's, or one that is no longer valid."""
        path = self.folder / f"{name.replace(':', '-')}.kubeconfig"
        identity.write_kubeconfig(path, server=self.server, ca_file=self.ca_file, user=name, token=token)
        return path

    def kubectl(self, *arguments: str, stdin: str | None = None, user: str = "admin") -> str:
        """Run kubectl and return its output; raises ClusterError with kubectl's own words if it fails."""
        # The development environment brings kubectl; PATH comes second.
        beside = Path(sys.executable).with_name("kubectl")
        program = str(beside) if beside.exists() else "kubectl"
        result = subprocess.run(
            [program, f"--kubeconfig={self.kubeconfig_for(user)}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
        )
        if result.returncode:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    def pids(self) -> dict[str, int]:
        """Process id of every program that runs, by the program's name."""
        return {name: pid for name, program in self.programs.items() if (pid := program.pid) is not None}

    # Life.

    def start(self) -> None:
        """Find or build the programs, start them, and return when all are ready.

        Raises ClusterError, with the tail of the failing program's log; everything is cleaned up then.
        """
        wanted = [ETCD, API_SERVER, *(name for name, run in self._parts.items() if run)]
        self._assets = sources.find(wanted, report=self._report)
        for attempt in range(1, ADDRESS_ATTEMPTS + 1):
            try:
                self._start_once()
                return
            except BaseException as error:
                taken = "address already in use" in str(error)
                self.stop()
                if not taken or attempt == ADDRESS_ATTEMPTS:
                    raise

    def _start_once(self) -> None:
        self._create_folder()
        self._keeper = Keeper(self.folder)
        self._port = free_port()
        identity.write_token_file(self.folder / "tokens.csv", self.users)
        self._launch(ETCD, self._etcd_flags())
        self._launch(API_SERVER, self._api_server_flags())  # it waits for etcd by itself
        self._wait_for_api_server()
        if self._parts[CONTROLLER_MANAGER]:
            self._start_controller_manager()
        if self._parts[SCHEDULER]:
            self.start_scheduler()
        if self._parts[KWOK]:
            self.start_kwok()

    def _create_folder(self) -> None:
        if self._wanted_folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="wholepod-"))
        else:
            self._wanted_folder.mkdir(parents=True, mode=0o700)
            self._folder = self._wanted_folder.resolve()
        (self._folder / "logs").mkdir()

    def stop(self) -> None:
        """Take everything down and remove the folder. Does nothing if there is nothing."""
        if self._api is not None:
            self._api.close()
            self._api = None
        for program in reversed(self.programs.values()):
            program.kill()
        self.programs.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder)
            self._folder = None
        if self._keeper is not None:
            self._keeper.release()
            self._keeper = None

    def stop_apiserver(self) -> None:
        """End the API server in good order: it finishes what is in flight and closes the watches."""
        self.programs[API_SERVER].stop()

    def kill_apiserver(self) -> None:
        """Kill the API server (SIGKILL): connections break, the data stays."""
        self.programs[API_SERVER].kill()

    def start_apiserver(self) -> None:
        """Start the API server again, on the same port and data; returns when it is ready."""
        self.programs[API_SERVER].start()
        self._wait_for_api_server()

    def start_scheduler(
        self, *, config: Path | None = None, qps: float = 50, burst: int = 100, flags: Sequence[str] = ()
    ) -> None:
        """Start kube-scheduler with its own RBAC role, as a cluster would.

        Args:
            config: a KubeSchedulerConfiguration with `clientConnection.kubeconfig` left out; then `qps`
                and `burst` (requests a second to the API server) do not count.
            flags: further flags; they come last.
        """
        kubeconfig = self.kubeconfig_for("system:kube-scheduler")
        port = free_port()
        if config is None:
            config = self.folder / "kube-scheduler.yaml"
            config.write_text(
                "apiVersion: kubescheduler.config.k8s.io/v1\n"
                "kind: KubeSchedulerConfiguration\n"
                "leaderElection: {leaderElect: false}\n"
                f"clientConnection: {{kubeconfig: {kubeconfig}, qps: {qps}, burst: {burst}}}\n"
            )
        program = self._launch(
            SCHEDULER,
            [
                f"--config={config.resolve()}",
                f"--kubeconfig={kubeconfig}",
                "--bind-address=127.0.0.1",
                f"--secure-port={port}",
                "--authentication-skip-lookup",
                "--authorization-always-allow-paths=/healthz,/livez,/readyz,/metrics",
                *self._gate_flags(),
                *flags,
            ],
        )
        ready = "Serving securely"
        program.wait_until(
            lambda: ready in program.log.read_text(errors="replace"), timeout_s=START_TIMEOUT_S
        )

    def start_kwok(self, *, stages: Path = KWOK_STAGES, node_selector: str | None = None) -> None:
        """Start kwok for all nodes, or for those that a label selector picks.

        Args:
            stages: what happens to nodes and pods, and when; the default runs a bound pod at once.
        """
        nodes = "--manage-all-nodes=true"
        if node_selector is not None:
            nodes = f"--manage-nodes-with-label-selector={node_selector}"
        lease = [f"--node-lease-duration-seconds={KWOK_LEASE_S}"] if self._node_lifecycle else []
        port = free_port()
        program = self._launch(
            KWOK,
            [
                f"--kubeconfig={self.kubeconfig}",
                f"--config={stages.resolve()}",
                f"--server-address=127.0.0.1:{port}",
                "--v=WARN",
                nodes,
                *lease,
            ],
        )
        program.wait_until(lambda: answers(port, "/healthz"), timeout_s=START_TIMEOUT_S)

    def _start_controller_manager(self) -> None:
        off = [TRUST_BUNDLE_CONTROLLER, *([] if self._node_lifecycle else NODE_LIFECYCLE_CONTROLLERS)]
        program = self._launch(
            CONTROLLER_MANAGER,
            [
                f"--kubeconfig={self.kubeconfig_for('system:kube-controller-manager')}",
                f"--controllers={','.join(['*', *(f'-{name}' for name in off)])}",
                "--leader-elect=false",
                "--secure-port=0",
                "--kube-api-qps=500",
                "--kube-api-burst=1000",
                f"--root-ca-file={self.ca_file}",
                f"--service-account-private-key-file={self._signing_key}",
                *self._gate_flags(),
                *self._controller_manager_flags,
            ],
        )
        # Only then can pods be created.
        program.wait_until(
            lambda: self._exists("/api/v1/namespaces/default/serviceaccounts/default"),
            timeout_s=START_TIMEOUT_S,
        )

    # Details.

    @property
    def _signing_key(self) -> Path:
        return self.folder / "certificates" / "apiserver.key"

    def _etcd_flags(self) -> list[str]:
        # Relative to the working directory: the path of a Unix socket may have no more than 107 bytes.
        client, peer = "unix://etcd.sock", "unix://etcd-peer.sock"
        return [
            "--name=embedded",
            "--data-dir=etcd",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=embedded={peer}",
            "--unsafe-no-fsync",
            "--quota-backend-bytes=8589934592",
            "--log-level=warn",
        ]

    def _api_server_flags(self) -> list[str]:
        disabled = []
        if not self._parts[CONTROLLER_MANAGER]:
            disabled.append(NEEDS_CONTROLLER_MANAGER)
        if not self._node_lifecycle:
            disabled.append(NEEDS_NODE_LIFECYCLE)
        served = ",".join(f"{name}={str(on).lower()}" for name, on in self._runtime_config.items())
        return [
            "--etcd-servers=unix://etcd.sock",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._port}",
            f"--cert-dir={self._signing_key.parent}",
            "--token-auth-file=tokens.csv",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._signing_key}",
            f"--service-account-signing-key-file={self._signing_key}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--endpoint-reconciler-type=none",
            *([f"--disable-admission-plugins={','.join(disabled)}"] if disabled else []),
            *([f"--runtime-config={served}"] if served else []),
            *self._gate_flags(),
            *self._apiserver_flags,
        ]

    def _gate_flags(self) -> list[str]:
        gates = ",".join(f"{gate}={str(on).lower()}" for gate, on in self._feature_gates.items())
        return [f"--feature-gates={gates}"] if gates else []

    def _launch(self, name: str, flags: Sequence[str]) -> Program:
        assert self._keeper is not None
        if name not in self._assets:
            self._assets |= sources.find([name], report=self._report)
        program = Program(
            name,
            [str(self._assets[name].path), *flags],
            folder=self.folder,
            log=self.folder / "logs" / f"{name}.log",
            group=self._keeper.group,
        )
        self.programs[name] = program
        program.start()
        return program

    def _wait_for_api_server(self) -> None:
        self.programs[API_SERVER].wait_until(self._api_server_is_ready, timeout_s=START_TIMEOUT_S)

    def _api_server_is_ready(self) -> bool:
        etcd = self.programs[ETCD]
        if etcd.pid is None:
            raise ClusterError(f"etcd died while the API server waited for it\n{etcd.tail()}")
        if not self.ca_file.exists():
            return False
        if self._api is None:
            self._api = Api.from_kubeconfig(self.kubeconfig)
        return self._exists("/readyz")

    def _exists(self, path: str) -> bool:
        try:
            self.api.text(path)
        except (ApiError, OSError):
            return False
        return True


def environment(kubeconfig: Path) -> dict[str, str]:
    """This process's environment with KUBECONFIG set, for programs that tests start."""
    return {**os.environ, "KUBECONFIG": str(kubeconfig)}
