"""What `kind-up` changes on the host: planned first, said, then done; and undone by `kind-down`.

The record of what was is written before anything is changed, so that a crash loses nothing.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tests.cluster.kind.shell import run
from tests.cluster.kind.ways import Way

# Program → the Debian package that has it.
PACKAGES: Mapping[str, str] = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "debootstrap": "debootstrap",
    "iptables": "iptables",
    "jq": "jq",
}
# The least that four nodes need: each watches many files, and what Linux allows a user at first is used up by
# two (https://kind.sigs.k8s.io/docs/user/known-issues/#pod-errors-due-to-too-many-open-files).
LEAST: Mapping[str, int] = {"fs.inotify.max_user_watches": 524288, "fs.inotify.max_user_instances": 512}
# What a kubelet in kind's own node image writes to the host by itself; two of them make an oops reboot it.
WRITTEN_BY_KUBELETS = (
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
)


class Record(msgspec.Struct, kw_only=True):
    """What `kind-down` has to undo."""

    way: Way
    node_image: str
    sysctls: dict[str, str] = {}  # name → the value before
    packages: list[str] = []  # installed; they stay
    engine: tuple[int, int] | None = None  # process id and start tick of the engine that we started


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is about to change."""

    packages: tuple[str, ...] = ()
    sysctls: dict[str, str] = {}  # name → the value to be
    watched: dict[str, str] = {}  # name → the value now, which kubelets will overwrite
    engine: bool = False  # start one

    def sentences(self) -> list[str]:
        """For people, one change each."""
        said = []
        if self.packages:
            said.append(f"install with apt-get: {', '.join(self.packages)} (they stay)")
        said += [f"set {name} to {value} (until kind-down)" for name, value in self.sysctls.items()]
        if self.engine:
            said.append("start a Docker engine (until kind-down)")
        if self.watched:
            names = ", ".join(self.watched)
            said.append(f"let the kubelets set {names} (kind-down puts them back)")
        return said


def plan(way: Way, *, engine: bool) -> Plan:
    """What going that way changes here; `engine`: one answers already."""
    lower = {name: str(least) for name, least in LEAST.items() if int(read(name)) < least}
    if way is Way.PULLED:
        return Plan(sysctls=lower, watched={name: read(name) for name in WRITTEN_BY_KUBELETS})
    missing = dict.fromkeys(package for name, package in PACKAGES.items() if shutil.which(name) is None)
    return Plan(packages=tuple(missing), sysctls=lower, engine=not engine)


def install(packages: tuple[str, ...]) -> None:
    """Install Debian packages, without what they only recommend. Raises ClusterError."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-q"], doing="Reading the lists of packages", env=environment)
    command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    run(command, doing=f"Installing {', '.join(packages)}", env=environment)


def read(name: str) -> str:
    """A kernel setting by its dotted name."""
    return _path(name).read_text().strip()


def write(name: str, value: str) -> None:
    """Change a kernel setting; one that has the value is left alone, so nobody needs root for nothing."""
    if read(name) != value:
        _path(name).write_text(f"{value}\n")


def _path(name: str) -> Path:
    return Path("/proc/sys", *name.split("."))
