"""Building the image with `docker build`, whichever builder that is, from the Dockerfile as it is."""

import json
import os
import re
import subprocess
from dataclasses import dataclass

import msgspec

from scheduler import __version__
from tests.cluster.assets import Report
from tests.image import base, sbom
from tests.image.base import ROOT
from tests.image.engine import docker

NAME = f"wholepod:{__version__}"
# Known to every builder without the Dockerfile saying so, and left out of the image's history.
PROXIES = tuple(name for word in ("http_proxy", "https_proxy", "no_proxy") for name in (word, word.upper()))


@dataclass(frozen=True)
class Image:
    """An image that was built."""

    name: str
    identity: str  # the digest of its configuration, which names all layers
    layers: tuple[str, ...]  # digests of their content, the base's first
    size_bytes: int
    base: str  # where that came from, for people


def build(name: str = NAME, *, on: str, report: Report, cached: bool = True) -> Image:
    """Build the image on the base `on`, or, if that can't be had, on one from packages.

    Raises ClusterError with the builder's last words.
    """
    found = base.find(on, report)
    revision, epoch_s = source()
    arguments = {
        "BASE": found.name,
        "BUILD_BASE": found.build_name,
        "VERSION": __version__,
        "REVISION": revision,
        "SOURCE_DATE_EPOCH": epoch_s,
    }
    report(f"Building {name} (a minute, if nothing of it is there yet)")
    docker(
        "build",
        f"--tag={name}",
        *(f"--build-arg={key}={value}" for key, value in arguments.items()),
        *(f"--build-arg={key}" for key in PROXIES if key in os.environ),
        *(() if cached else ("--no-cache",)),
        ".",
        doing=f"Building {name}",
        cwd=ROOT,
    )
    return inspect(name, found.origin)


def inspect(name: str, origin: str) -> Image:
    """What the engine knows of an image. Raises ClusterError if that is nothing."""
    [known] = json.loads(docker("image", "inspect", name, doing=f"Looking at {name}"))
    return Image(name, known["Id"], tuple(known["RootFS"]["Layers"]), known["Size"], origin)


def bill_of_materials(image: Image) -> str:
    """The list of what is in the image (`sbom.py`), which the image's own Python is asked for."""
    container = ("--rm", "--interactive", "--read-only", "--network=none", "--entrypoint=python")
    command = ("run", *container, image.name, "-I", "-")
    printed = docker(*command, doing=f"Asking {image.name} what is in it", stdin=sbom.INVENTORY.read_text())
    name, _, version = image.name.rpartition(":")
    return sbom.write(
        msgspec.json.decode(printed, type=sbom.Inventory),
        name=name,
        version=version,
        layers=image.layers,
        made_at_unix_s=int(source()[1]),
    )


def source() -> tuple[str, str]:
    """The revision of the sources, and their time in seconds since 1970: SOURCE_DATE_EPOCH, else the
    commit's. Sources without git have neither."""
    answer = _git("log", "-1", "--format=%H %ct").split()
    revision, commit_s = answer if len(answer) == 2 else ("unknown", "0")
    if _git("status", "--porcelain", "--untracked-files=no"):
        revision += "-dirty"
    asked = os.environ.get("SOURCE_DATE_EPOCH", "")
    return revision, asked if re.fullmatch(r"\d+", asked) else commit_s


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""
