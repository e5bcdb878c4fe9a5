"""Where the programs of a control plane come from.

For each program, the first of:

1. a folder that the user names: `WHOLEPOD_ASSETS`, then `KUBEBUILDER_ASSETS` (what is in it is taken
   as it is: this is how to test against another Kubernetes release);
2. PATH, if the version is right: etcd 3.6 or newer, the pinned minor of the others;
3. our cache, keyed by a hash of everything that is pinned;
4. a build from the Go modules pinned under `programs/`, into that cache.

So a machine needs Python, Go and make, neither Docker nor a package manager.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.cluster.assets import PROGRAMS, Report, Version, cache_folder
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
    """Find or build the programs.

    Raises ClusterError if one can neither be found nor built; the message says what would help.
    """
    wanted = list(dict.fromkeys(names))
    found = {name: asset for name in wanted if (asset := _existing(name)) is not None}
    missing = [PROGRAMS[name] for name in wanted if name not in found]
    if missing:
        folder = cache_folder()
        build(missing, folder, report=report)
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
