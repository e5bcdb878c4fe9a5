"""Which programs there are and which versions are pinned.

A version is written down in one place, the go.mod of the module that a program is built from;
everything else (what PATH may offer, what the linker is told, the cache's name) follows.

Kubernetes' programs come in several minors: `WHOLEPOD_KUBERNETES=1.36` picks an older one, from
`programs/kubernetes-1.36`, for whatever starts a control plane. etcd and kwok stay the same.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError

MODULES = Path(__file__).with_name("programs")
MINOR_VARIABLE = "WHOLEPOD_KUBERNETES"
BUILD_ENVIRONMENT: Mapping[str, str] = {
    "CGO_ENABLED": "0",
    "GOFLAGS": "-mod=readonly -buildvcs=false",
    "GOWORK": "off",
}
ETCD_OLDEST = (3, 6)
PROMETHEUS_OLDEST = (2, 42)

Version = tuple[int, int, int]
Report = Callable[[str], None]  # gets a line that replaces the one before


@dataclass(frozen=True)
class Pin:
    """A program and the Go package that it is built from."""

    name: str
    folder: Path  # of the Go module that pins it
    module: str  # whose version in that folder's go.mod is the pinned one
    package: str
    is_test: bool = False  # a package of tests, compiled with `go test -c`
    tags: str = ""  # build tags, with commas between them

    @property
    def pinned(self) -> Version:
        """The version that go.mod pins."""
        text = (self.folder / "go.mod").read_text()
        match = re.search(
            rf"^(?:require)?\s*{re.escape(self.module)} v(\d+)\.(\d+)\.(\d+)", text, re.MULTILINE
        )
        assert match is not None, f"{self.folder.name}/go.mod does not pin {self.module}"
        return int(match[1]), int(match[2]), int(match[3])

    def accepts(self, version: Version) -> bool:
        """Whether a program found on PATH will do."""
        if self.package == OWN:
            return False
        if self.name == "etcd":
            return version[:2] >= ETCD_OLDEST
        if self.folder.name == "prometheus":
            return version[:2] >= PROMETHEUS_OLDEST
        return version[:2] == self.pinned[:2]


OWN = "."
"""The package of a program whose source lies in its folder: nobody else has it."""
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
"""What a control plane may run."""
TOOLS = ("helm", "prometheus", "promtool")
"""What tests run beside it."""
_BESIDES_KUBERNETES: Mapping[str, tuple[str, str]] = {  # name → the module that is pinned, the package
    "coredns": ("github.com/coredns/coredns", OWN),
    "etcd": ("go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3"),
    "helm": ("helm.sh/helm/v4", "helm.sh/helm/v4/cmd/helm"),
    "kind": ("sigs.k8s.io/kind", "sigs.k8s.io/kind"),
    "kwok": ("sigs.k8s.io/kwok", "sigs.k8s.io/kwok/cmd/kwok"),
    "netd": ("github.com/vishvananda/netlink", OWN),
    "pause": ("", OWN),
    "workload": ("", OWN),
}


def pin(name: str) -> Pin:
    """The program of that name, of the Kubernetes minor that was asked for.

    Raises ClusterError if that minor is none of those that are pinned here.
    """
    if name in _BESIDES_KUBERNETES:
        return Pin(name, MODULES / name, *_BESIDES_KUBERNETES[name])
    if name in ("prometheus", "promtool"):
        module = "github.com/prometheus/prometheus"
        # Discovery in clouds would be most of what there is to compile.
        return Pin(name, MODULES / "prometheus", module, f"{module}/cmd/{name}", tags="remove_all_sd")
    return Pin(name, _kubernetes_module(), "k8s.io/kubernetes", f"k8s.io/kubernetes/cmd/{name}")


def asked_minor() -> str | None:
    """The older Kubernetes minor that the user asked for ("1.36"), or None for the one we follow."""
    return os.environ.get(MINOR_VARIABLE) or None


def older_minors() -> list[str]:
    """The minors that can be asked for, oldest first."""
    names = [path.name.removeprefix("kubernetes-") for path in MODULES.glob("kubernetes-*")]
    return sorted(names, key=lambda minor: int(minor.partition(".")[2]))


def _kubernetes_module() -> Path:
    minor = asked_minor()
    if minor is None:
        return MODULES / "kubernetes"
    if minor not in older_minors():
        raise ClusterError(
            f"{MINOR_VARIABLE} asks for Kubernetes {minor}, of which nothing is pinned here; "
            f"it may be {' or '.join(older_minors())}, or unset for the newest"
        )
    return MODULES / f"kubernetes-{minor}"


def cache_folder(program: Pin) -> Path:
    """The folder of built programs of one module; it changes whenever its sources or build flags do."""
    digest = hashlib.sha256(repr(sorted(BUILD_ENVIRONMENT.items())).encode())
    digest.update((linker_flags(program) + program.tags).encode())
    for path in sorted(program.folder.iterdir()):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return cache_home() / f"{program.folder.name}-{digest.hexdigest()[:16]}"


def cache_home() -> Path:
    """The folder of everything that is built once and kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wholepod"


def linker_flags(program: Pin) -> str:
    """No symbol tables; programs are told their version, if they don't know it by themselves."""
    flags = "-s -w"
    if program.module == "github.com/prometheus/prometheus":
        _, minor, patch = program.pinned  # v0.313.5 is the module of Prometheus 3.13.5
        flags += f" -X github.com/prometheus/common/version.Version={minor // 100}.{minor % 100}.{patch}"
    if program.module == "k8s.io/kubernetes":
        major, minor, patch = program.pinned
        known = {"gitVersion": f"v{major}.{minor}.{patch}", "gitMajor": str(major), "gitMinor": str(minor)}
        flags += "".join(f" -X k8s.io/component-base/version.{key}={value}" for key, value in known.items())
    return flags
