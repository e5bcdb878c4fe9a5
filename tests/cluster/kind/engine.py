"""The Docker engine: the one that answers, or, where there is none, one of our own.

An engine that somebody else runs is used as it is and never stopped. Our own keeps its data in the cache
folder, so that a node image that was built once is there the next time, and runs until `kind-down`.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.assets import cache_home
from tests.cluster.errors import ClusterError
from tests.cluster.kind.shell import run
from tests.cluster.planes import start_ticks

ANSWER_TIMEOUT_S = 20.0
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
POLL_INTERVAL_S = 0.3
LOG_TAIL_LINES = 15
CGROUP_V2_MARK = Path("/sys/fs/cgroup/cgroup.controllers")
RUNC_BOUNDED = Path(__file__).with_name("runc-bounded")
# What a dockerd that was killed leaves behind, and would trip the next one.
SOCKET = Path("/run/docker.sock")
CONTAINERD_PID = Path("/run/docker/containerd/containerd.pid")


@dataclass(frozen=True)
class Engine:
    """An engine that answers."""

    client: Path
    version: str
    cgroup_version: int
    memory_bytes: int

    def environment(self) -> dict[str, str]:
        """The environment in which kind finds the right client."""
        return {**os.environ, "PATH": f"{self.client.parent}:{os.environ.get('PATH', '')}"}

    def docker(self, *arguments: str, doing: str, stdin: bytes | None = None) -> str:
        """What the client prints. Raises ClusterError."""
        return run([self.client, *arguments], doing=doing, stdin=stdin)

    def has_image(self, name: str) -> bool:
        """Whether the engine holds that image."""
        return _works([str(self.client), "image", "inspect", name])

    def tags(self, repository: str) -> list[str]:
        """The names of all images of a repository."""
        question = ("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository)
        return self.docker(*question, doing="Listing images").split()

    def pull(self, name: str) -> bool:
        """Try to pull an image; False is an answer, not an error: the machine may reach no registry."""
        return _works([str(self.client), "pull", "--quiet", name], timeout_s=900.0)


def find() -> Engine | None:
    """The engine that one of the clients on PATH reaches (DOCKER_HOST and contexts count), or None."""
    question = "{{.ServerVersion}} {{.CgroupVersion}} {{.MemTotal}}"
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    for client in dict.fromkeys(shutil.which("docker", path=folder) for folder in folders):
        if client is None:
            continue
        try:
            answer = subprocess.run(
                [client, "info", "--format", question],
                capture_output=True,
                text=True,
                timeout=ANSWER_TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        words = answer.stdout.split()
        if answer.returncode == 0 and len(words) == 3:
            return Engine(Path(client), words[0], int(words[1]), int(words[2]))
    return None


def host_cgroup_version() -> int:
    """Which cgroup version this machine's engine will find."""
    return 2 if CGROUP_V2_MARK.exists() else 1


@dataclass(frozen=True)
class Daemon:
    """The dockerd that we start: its folder holds data, configuration, log and process id."""

    folder: Path

    @classmethod
    def ours(cls) -> "Daemon":
        """The one of this user."""
        return cls(cache_home() / "kind-engine")

    @property
    def log(self) -> Path:
        """Everything that it says."""
        return self.folder / "dockerd.log"

    def start(self) -> tuple[int, int]:
        """Start it; returns its process id and the tick at which it started. Needs root.

        Raises ClusterError with the end of its log.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        runtime = self.folder / "runc-bounded"
        shutil.copyfile(RUNC_BOUNDED, runtime)
        runtime.chmod(0o755)
        config = self.folder / "daemon.json"
        config.write_text(json.dumps(self._config(runtime), indent=2))
        _clear_remains(self.folder / "dockerd.pid")
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                ["dockerd", "--config-file", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # it outlives this command
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while find() is None:
            if process.poll() is not None or time.monotonic() > deadline:
                process.terminate()
                lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
                raise ClusterError(
                    "dockerd did not start; the end of its log:\n" + "\n".join(f"  {line}" for line in lines)
                )
            time.sleep(POLL_INTERVAL_S)
        ticks = start_ticks(process.pid)
        assert ticks is not None
        return process.pid, ticks

    def stop(self, pid: int, ticks: int) -> None:
        """End the dockerd that `start` returned, and what it leaves behind; the data stays."""
        if start_ticks(pid) == ticks:
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_TIMEOUT_S
            while start_ticks(pid) == ticks:
                if time.monotonic() > deadline:
                    raise ClusterError(f"dockerd (process {pid}) does not end; its log is {self.log}")
                time.sleep(POLL_INTERVAL_S)
        # It mounts its data folder on itself, and keeps its bridge.
        data = self.folder / "data"
        if data.is_mount():
            run(["umount", data], doing="Unmounting the engine's data folder")
        if Path("/sys/class/net/docker0").exists():
            run(["ip", "link", "delete", "docker0"], doing="Removing the engine's bridge")

    def _config(self, runtime: Path) -> dict[str, object]:
        return {
            "data-root": str(self.folder / "data"),
            "pidfile": str(self.folder / "dockerd.pid"),
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "runtimes": {"runc-bounded": {"path": str(runtime)}},
            "default-runtime": "runc-bounded",
            "log-opts": {"max-size": "50m"},
        }


def _clear_remains(pid_file: Path) -> None:
    """Take away what a dockerd that was killed has left. Raises ClusterError if one listens all the same:
    it may be slow, or DOCKER_HOST name another."""
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.connect(str(SOCKET))
        raise ClusterError(
            f"a Docker engine listens on {SOCKET}, but no docker client on PATH gets an answer from it; "
            "see whether it is well, and what DOCKER_HOST says"
        )
    for stale in (pid_file, SOCKET):
        stale.unlink(missing_ok=True)
    try:
        pid = int(CONTAINERD_PID.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        pid, command = 0, b""
    if b"/docker/containerd/" in command:
        os.kill(pid, signal.SIGTERM)
        time.sleep(1.0)
    CONTAINERD_PID.unlink(missing_ok=True)


def _works(argv: list[str], *, timeout_s: float = ANSWER_TIMEOUT_S) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, timeout=timeout_s).returncode == 0
    except subprocess.TimeoutExpired:
        return False
