"""kubectl for what it does without a cluster: building kustomizations, merging patches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]


def kubectl(*arguments: str) -> str:
    """What it prints. Raises CalledProcessError, with its words on standard error."""
    program = Path(sys.executable).with_name("kubectl")  # which the development environment brings
    return subprocess.run([program, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def build(kustomization: Path) -> list[Json]:
    """The objects of a folder with a kustomization.yaml."""
    return list(yaml.safe_load_all(kubectl("kustomize", str(kustomization))))
