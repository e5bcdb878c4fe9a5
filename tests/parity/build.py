"""Builds the oracle, once per version of its sources, into the user's cache."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from tests.cluster.assets import BUILD_ENVIRONMENT, Pin, Report
from tests.cluster.build import build
from tests.cluster.progress import plain_report

SOURCES = Path(__file__).with_name("oracle")
# An absolute folder stands for itself where programs/<folder> is expected.
PROGRAM = Pin("oracle", str(SOURCES), "k8s.io/kubernetes", ".")


def oracle_program(report: Report | None = None) -> Path:
    """Path of the oracle, built if need be: seconds after a build of kube-scheduler, else minutes.

    Raises ClusterError when it cannot be built.
    """
    folder = _cache_folder()
    if not (folder / PROGRAM.name).exists():
        build([PROGRAM], folder, report=report or plain_report())
    return folder / PROGRAM.name


def _cache_folder() -> Path:
    digest = hashlib.sha256(repr(sorted(BUILD_ENVIRONMENT.items())).encode())
    for path in sorted(SOURCES.iterdir()):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "wholepod" / f"oracle-{digest.hexdigest()[:16]}"
