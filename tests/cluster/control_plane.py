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

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.cluster import flags, identity, sources
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
        users: Mapping[str, Sequence[str]] | None = None,
        folder: Path | None = None,
        report: Report | None = None,
    ) -> None:
        if node_lifecycle and not (controller_manager and kwok):
            raise ValueError("node_lifecycle needs controller_manager and kwok")
        self._node_lifecycle = node_lifecycle
        self._parts = {CONTROLLER_MANAGER: controller_manager, SCHEDULER: scheduler, KWOK: kwok}
        self._gates = flags.switches("--feature-gates", feature_gates or {})
        self._runtime_config = dict(runtime_config or {})
        self._apiserver_flags = list(apiserver_flags)
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
        return self.folder / flags.CERTIFICATE_FOLDER / "apiserver.crt"

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

    def kubeconfig_for_account(self, name: str, *, namespace: str = "kube-system") -> Path:
        """A kubeconfig with a fresh token, good for a day, of a ServiceAccount that exists."""
        token = self.api.post(
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": 24 * 3600},
            },
        )["status"]["token"]
        return self.kubeconfig_with_token(name, token)

    def kubectl(self, *arguments: str, stdin: str | None = None, user: str = "admin") -> str:
        """Run kubectl and return its output; raises ClusterError with kubectl's own words if it fails."""
        program = str(sources.kubectl())
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
        identity.write_token_file(self.folder / flags.TOKEN_FILE, self.users)
        self._launch(ETCD, flags.etcd())
        self._start_api_server()  # it waits for etcd by itself
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
        self, *, qps: float = 50, burst: int = 100, settings: Mapping[str, Any] | None = None
    ) -> None:
        """Start kube-scheduler with its own RBAC role, as a cluster would.

        Args:
            qps: requests a second to the API server, and `burst` of them at once (kube-scheduler's defaults).
            settings: fields of its KubeSchedulerConfiguration, such as `profiles`; they replace ours.
        """
        kubeconfig = self.kubeconfig_for("system:kube-scheduler")
        config = self.folder / "kube-scheduler.json"
        content = flags.scheduler_config(kubeconfig, qps=qps, burst=burst, settings=settings or {})
        config.write_text(json.dumps(content))
        program = self._launch(SCHEDULER, [*flags.scheduler(config, free_port()), *self._gates])
        ready = "Serving securely"
        program.wait_until(
            lambda: ready in program.log.read_text(errors="replace"), timeout_s=START_TIMEOUT_S
        )

    def start_kwok(self, *, stages: Path = KWOK_STAGES, node_selector: str | None = None) -> None:
        """Start kwok for all nodes, or for those that a label selector picks.

        Args:
            stages: what happens to nodes and pods, and when; the default runs a bound pod at once.
        """
        port = free_port()
        program = self._launch(
            KWOK,
            flags.kwok(
                self.kubeconfig,
                port,
                stages=stages.resolve(),
                node_selector=node_selector,
                node_lifecycle=self._node_lifecycle,
            ),
        )
        program.wait_until(lambda: answers(port, "/healthz"), timeout_s=START_TIMEOUT_S)

    def start_beside(self, name: str, argv: Sequence[str], *, log: Path | None = None) -> Program:
        """Start a program of the caller's that must not outlive the plane, whatever happens to its owner.

        Args:
            log: where its output goes; by default beside the other programs' logs, which die with the plane.
        """
        assert self._keeper is not None
        if name in self.pids():
            raise ClusterError(f"{name} runs already; stop it first (programs[{name!r}].stop())")
        program = Program(
            name,
            argv,
            folder=self.folder,
            log=log or self.folder / "logs" / f"{name}.log",
            group=self._keeper.group,
        )
        self.programs[name] = program
        program.start()
        return program

    def _start_api_server(self) -> None:
        own = flags.api_server(
            self._port,
            served=self._runtime_config,
            controller_manager=self._parts[CONTROLLER_MANAGER],
            node_lifecycle=self._node_lifecycle,
        )
        self._launch(API_SERVER, [*own, *self._gates, *self._apiserver_flags])
        self._wait_for_api_server()

    def _start_controller_manager(self) -> None:
        own = flags.controller_manager(
            self.kubeconfig_for("system:kube-controller-manager"), node_lifecycle=self._node_lifecycle
        )
        program = self._launch(CONTROLLER_MANAGER, [*own, *self._gates])
        # Only then can pods be created.
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        program.wait_until(lambda: self._exists(account), timeout_s=START_TIMEOUT_S)

    def _launch(self, name: str, arguments: Sequence[str]) -> Program:
        if name not in self._assets:
            self._assets |= sources.find([name], report=self._report)
        return self.start_beside(name, [str(self._assets[name].path), *arguments])

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
