"""The base that Wholepod's image is built on: one that is pulled, or one that is made from Debian's packages.

The second is for machines that reach no registry. It is the same Debian that the first is made of, with
Debian's Python. It goes by the hash of what makes it and is kept in the cache folder, so it also grows old
there: it is for trying things out and for tests, not for a release.
"""

import hashlib
import os
import re
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.assets import Report, cache_home
from tests.cluster.build import lock
from tests.cluster.errors import ClusterError
from tests.cluster.kind.shell import run
from tests.image.engine import docker, has_image

ROOT = Path(__file__).parent.parent.parent
DOCKERFILE = ROOT / "Dockerfile"
SCRIPT = Path(__file__).with_name("base.sh")


@dataclass(frozen=True)
class Base:
    """What the Dockerfile's arguments BASE and BUILD_BASE get."""

    name: str
    build_name: str
    origin: str  # for people


def default() -> str:
    """The base that the Dockerfile names."""
    found = re.search(r"^ARG BASE=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def find(name: str, report: Report) -> Base:
    """The base of that name, if the engine has it or can pull it, else one from packages.

    Raises ClusterError if there can be neither, with both reasons.
    """
    if has_image(name):
        return Base(name, name, f"{name}, which the engine has")
    report(f"Pulling {name}")
    try:
        docker("pull", "--quiet", name, doing=f"Pulling {name}")
    except ClusterError as error:
        reason = str(error).splitlines()[-1].strip()
        report(f"{name} can't be pulled ({reason}): building on Debian's packages")
        return _from_packages(reason, report)
    return Base(name, name, f"{name}, pulled")


def _from_packages(reason: str, report: Report) -> Base:
    trusted = Path(os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile or "/dev/null")
    key = hashlib.sha256(SCRIPT.read_bytes() + trusted.read_bytes()).hexdigest()[:16]
    base = Base(
        f"wholepod-base:{key}",
        f"wholepod-build-base:{key}",
        f"Debian's packages, since no base could be pulled ({reason})",
    )
    folder = cache_home() / f"image-base-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder.with_name(f"{folder.name}.lock"), report):
        archives = {base.name: folder / "base.tar", base.build_name: folder / "build-base.tar"}
        missing = [name for name in archives if not has_image(name)]
        if missing and not all(path.exists() for path in archives.values()):
            _make(folder, list(archives.values()), trusted, report)
        for name in missing:
            report(f"Loading {name}")
            docker("import", archives[name], name, doing=f"Loading {name}")
    return base


def _make(folder: Path, archives: list[Path], trusted: Path, report: Report) -> None:
    if os.geteuid():
        raise ClusterError(
            "no base image can be pulled, and to make one from Debian's packages takes root: "
            "name a base that the engine has in BASE"
        )
    report("Fetching Debian's packages by debootstrap (once, about a minute)")
    with tempfile.TemporaryDirectory(prefix="root-", dir=folder) as root:
        doing = "Making a base image of Debian's packages"
        run(["sh", SCRIPT, root, *archives, trusted], doing=doing)
