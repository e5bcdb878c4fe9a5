"""Which programs there are and which versions are pinned.

A version is written down in one place, the go.mod of the folder under `programs/` that a program is
built from; everything else (what PATH may offer, what the linker is told, the cache's name) follows.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

MODULES = Path(__file__).with_name("programs")
BUILD_ENVIRONMENT: Mapping[str, str] = {
    "CGO_ENABLED": "0",
    "GOFLAGS": "-mod=readonly -buildvcs=false",
    "GOWORK": "off",
}
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
