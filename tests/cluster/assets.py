"""Where the programs of a control plane come from.

For each program, the first of:

1. a folder that the user names: `WHOLEPOD_ASSETS`, then `KUBEBUILDER_ASSETS` (what is in it is taken
   as it is: this is how to test against another Kubernetes release);
2. PATH, if the version is right: etcd 3.6 or newer, the pinned minor of the others;
3. our cache, keyed by a hash of everything that is pinned;
4. a build from the Go modules pinned under `programs/`, into that cache.

So a machine needs Python, Go and make, neither Docker nor a package manager, and a version is
written down once: in a go.mod.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.cluster.errors import ClusterError

MODULES = Path(__file__).with_name("programs")
ASSET_VARIABLES = ("WHOLEPOD_ASSETS", "KUBEBUILDER_ASSETS")
BUILD_ENVIRONMENT: Mapping[str, str] = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}
ETCD_OLDEST = (3, 6)

Version = tuple[int, int, int]
Report = Callable[[str], None]  # gets a line that replaces the one before


@dataclass(frozen=True)
class Pin:
    """A program and the Go package that it is built from."""

    name: str
    folder: str  # under programs/
    module: str  # whose version in that folder's go.mod is the pinned one
    package: str

    @property
    def pinned(self) -> Version:
        """The version that go.mod pins."""
        text = (MODULES / self.folder / "go.mod").read_text()
        match = re.search(
            rf"^(?:require)?\s*{re.escape(self.module)} v(\d+)\.(\d+)\.(\d+)", text, re.MULTILINE
        )
        assert match is not None, f"{self.folder}/go.mod does not pin {self.module}"
        return int(match[1]), int(match[2]), int(match[3])

    def accepts(self, version: Version) -> bool:
        """Whether a program found on PATH will do."""
        if self.name == "etcd":
            return version[:2] >= ETCD_OLDEST
        return version[:2] == self.pinned[:2]


@dataclass(frozen=True)
class Asset:
    """A program as it was found."""

    name: str
    path: Path
    source: str  # for people: "PATH", "cache", "built", or the variable that named the folder


def _kubernetes(name: str) -> Pin:
    return Pin(name, "kubernetes", "k8s.io/kubernetes", f"k8s.io/kubernetes/cmd/{name}")


PROGRAMS: Mapping[str, Pin] = {
    program.name: program
    for program in (
        Pin("etcd", "etcd", "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3"),
        _kubernetes("kube-apiserver"),
        _kubernetes("kube-controller-manager"),
        _kubernetes("kube-scheduler"),
        Pin("kwok", "kwok", "sigs.k8s.io/kwok", "sigs.k8s.io/kwok/cmd/kwok"),
    )
}


def cache_folder() -> Path:
    """The folder of built programs; it changes whenever a pinned version or a build flag does."""
    digest = hashlib.sha256()
    for path in sorted(MODULES.glob("*/go.*")):
        digest.update(f"{path.relative_to(MODULES)}\n".encode() + path.read_bytes())
    digest.update(repr(sorted(BUILD_ENVIRONMENT.items())).encode())
    digest.update(linker_flags(PROGRAMS["kube-apiserver"]).encode())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "wholepod" / f"programs-{digest.hexdigest()[:16]}"


def linker_flags(program: Pin) -> str:
    """No symbol tables; Kubernetes' programs are told their version, which they don't know by themselves."""
    flags = "-s -w"
    if program.module == "k8s.io/kubernetes":
        major, minor, patch = program.pinned
        known = {"gitVersion": f"v{major}.{minor}.{patch}", "gitMajor": str(major), "gitMinor": str(minor)}
        flags += "".join(f" -X k8s.io/component-base/version.{key}={value}" for key, value in known.items())
    return flags


def find(names: Iterable[str], *, report: Report) -> dict[str, Asset]:
    """Find or build the programs.

    Raises ClusterError if one can neither be found nor built; the message says what would help.
    """
    from tests.cluster import build  # it needs the tables above

    wanted = list(dict.fromkeys(names))
    found = {name: asset for name in wanted if (asset := _existing(name)) is not None}
    missing = [PROGRAMS[name] for name in wanted if name not in found]
    if missing:
        folder = cache_folder()
        build.build(missing, folder, report=report)
        found |= {program.name: Asset(program.name, folder / program.name, "built") for program in missing}
    return found


def _existing(name: str) -> Asset | None:
    for variable in ASSET_VARIABLES:
        folder = os.environ.get(variable)
        if folder and not Path(folder).is_dir():
            raise ClusterError(f"{variable} names {folder}, which is not a folder")
        if folder and os.access(path := Path(folder).resolve() / name, os.X_OK):
            return Asset(name, path, variable)
    on_path = shutil.which(name)
    if on_path is not None and PROGRAMS[name].accepts(_version_of(on_path)):
        return Asset(name, Path(on_path).resolve(), "PATH")
    cached = cache_folder() / name
    return Asset(name, cached, "cache") if os.access(cached, os.X_OK) else None


@cache
def _version_of(program: str) -> Version:
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        answer = ""
    match = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", answer)
    return (int(match[1]), int(match[2]), int(match[3])) if match else (0, 0, 0)
