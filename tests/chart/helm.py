"""The real helm, on the chart of this repository."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.chart.schema import CHART
from tests.cluster import sources

Json = dict[str, Any]
EVERYTHING = CHART / "ci" / "everything-values.yaml"
RELEASE, NAMESPACE = "wholepod", "scheduling"


class HelmError(Exception):
    """helm said no; the text is what it said."""


@cache
def program() -> Path:
    return sources.find(["helm"], report=lambda line: None)["helm"].path


def helm(*arguments: str | Path) -> str:
    """What it prints. Raises HelmError."""
    done = subprocess.run([program(), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise HelmError(done.stderr)
    return done.stdout


def render(*arguments: str | Path, minor: str = "1.37") -> list[Json]:
    """The objects that an installation would create."""
    output = helm(
        "template", RELEASE, CHART, f"--namespace={NAMESPACE}", f"--kube-version={minor}.0", *arguments
    )
    return [item for item in yaml.safe_load_all(output) if item]


def of_kind(items: list[Json], kind: str, part: str = "") -> Json:
    """The object of a kind: the scheduler's, or the other part's whose name has this behind it."""
    found = [item for item in items if item["kind"] == kind]
    names = {item["metadata"]["name"]: item for item in found}
    shortest = min(names, key=len)
    return names[f"{shortest.removesuffix('-controller')}{part}"] if part else names[shortest]
