"""Control planes that outlive the command that started them, by name.

The owner of such a plane is a background process (`hold`) in a session of its own: it does what a
test does (start, wait, stop), so there is one way in which a plane lives and ends, and its keeper
guards it all the same. What other commands know about it is one file, `plane.json`, in the plane's
folder under the XDG state folder. A record is believed only while its process lives: the process id
*and* the time at which that process started must match, since ids are reused.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.cluster import sources
from tests.cluster.api import node_manifest
from tests.cluster.assets import Report
from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ClusterError

ROOT = Path(__file__).parents[2]
RECORD = "plane.json"
POLL_INTERVAL_S = 0.05
STOP_TIMEOUT_S = 30.0


class NodeGroup(msgspec.Struct, frozen=True):
    """So many equal nodes: `cpu` and `memory` are Kubernetes quantities."""

    count: int
    cpu: str
    memory: str


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a plane is made of; the meaning of each is ControlPlane's."""

    controller_manager: bool = True
    scheduler: bool = False
    kwok: bool = False
    nodes: tuple[NodeGroup, ...] = ()
    feature_gates: dict[str, bool] = {}
    runtime_config: dict[str, bool] = {}

    def programs(self) -> list[str]:
        """The programs that such a plane runs."""
        optional = {
            "kube-controller-manager": self.controller_manager,
            "kube-scheduler": self.scheduler,
            "kwok": self.kwok,
        }
        return ["etcd", "kube-apiserver", *(name for name, wanted in optional.items() if wanted)]


class Record(msgspec.Struct, frozen=True):
    """What is known about a plane that was started in the background."""

    name: str
    pid: int
    started_ticks: int  # of the owner's process, since boot: makes `pid` unique
    started_unix_s: float
    server: str
    kubeconfig: str
    programs: dict[str, int]  # name → process id

    @property
    def alive(self) -> bool:
        """Whether the owner still runs."""
        return start_ticks(self.pid) == self.started_ticks


def home() -> Path:
    """The folder that has one folder for each plane."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "wholepod" / "clusters"


def start_ticks(pid: int) -> int | None:
    """When a process started (clock ticks since boot, proc(5) field 22), or None if it does not run."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the program's name in parentheses, and may itself contain some.
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] == "Z" else int(fields[19])


def records() -> list[Record]:
    """All planes that were started and not yet stopped, dead ones included, by name."""
    return [
        msgspec.json.decode(path.read_bytes(), type=Record) for path in sorted(home().glob(f"*/{RECORD}"))
    ]


def find(name: str) -> Record:
    """The running plane of that name; ClusterError if there is none."""
    for record in records():
        if record.name == name and record.alive:
            return record
    raise ClusterError(f"no control plane named {name!r} is up; start one with `python -m tests.cluster up`")


def up(name: str, options: Options, *, report: Report) -> Record:
    """Start a plane in the background and return when it is ready.

    Raises ClusterError, with the tail of the failing program's log, if it does not become ready or if
    the name is taken.
    """
    folder = home() / name
    if folder.exists():
        if any(record.name == name and record.alive for record in records()):
            raise ClusterError(
                f"control plane {name!r} is up already; `down` stops it, --name starts another"
            )
        shutil.rmtree(folder)
    sources.find(options.programs(), report=report)  # builds here, where somebody watches
    report(f"Starting control plane {name}")
    # The background process works elsewhere, where a relative folder would be another one.
    folders = {
        key: os.path.abspath(os.environ[key]) for key in sources.ASSET_VARIABLES if os.environ.get(key)
    }
    with tempfile.TemporaryFile() as errors:
        owner = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster", "hold", name, msgspec.json.encode(options).decode()],
            cwd=ROOT,
            env={**os.environ, **folders},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        try:
            while not (folder / RECORD).exists():
                if owner.poll() is not None:
                    errors.seek(0)
                    raise ClusterError(errors.read().decode(errors="replace").strip())
                time.sleep(POLL_INTERVAL_S)
        except KeyboardInterrupt:
            owner.terminate()
            owner.wait()
            raise
    # It is on its own from here on; without this, Python would warn that it still runs.
    owner.returncode = 0
    return find(name)


def hold(name: str, options: Options) -> None:
    """Own a plane until SIGTERM or SIGINT: what the background process does."""
    asked_to_stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked_to_stop.set())
    with ControlPlane(
        controller_manager=options.controller_manager,
        scheduler=options.scheduler,
        kwok=options.kwok,
        feature_gates=options.feature_gates,
        runtime_config=options.runtime_config,
        folder=home() / name,
    ) as plane:
        plane.api.create_many(_manifests(options.nodes))
        record = Record(
            name=name,
            pid=os.getpid(),
            started_ticks=start_ticks(os.getpid()) or 0,
            started_unix_s=time.time(),
            server=plane.server,
            kubeconfig=str(plane.kubeconfig),
            programs=plane.pids(),
        )
        draft = plane.folder / f"{RECORD}.new"
        draft.write_bytes(msgspec.json.encode(record))
        draft.replace(plane.folder / RECORD)
        asked_to_stop.wait()


def down(name: str) -> None:
    """Stop a plane and return when nothing of it is left; ClusterError if there is none of that name."""
    folder = home() / name
    if not folder.exists():
        raise ClusterError(f"no control plane named {name!r}")
    for record in records():
        if record.name == name and record.alive:
            os.kill(record.pid, signal.SIGTERM)
            if not _gone(record, STOP_TIMEOUT_S):
                os.kill(record.pid, signal.SIGKILL)  # the keeper does the rest
                _gone(record, STOP_TIMEOUT_S)
    # Nothing is left of a plane that was stopped; a machine that lost power may have left a folder.
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _gone(record: Record, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while record.alive and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL_S)
    return not record.alive


def _manifests(groups: Sequence[NodeGroup]) -> list[dict[str, object]]:
    sizes = [group for group in groups for _ in range(group.count)]
    return [
        node_manifest(f"node-{number}", cpu=size.cpu, memory=size.memory)
        for number, size in enumerate(sizes, start=1)
    ]
