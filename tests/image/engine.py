"""The docker client, as a function: that of the engine which answers, wherever its client lies."""

from functools import cache
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.kind import engine, shell


@cache
def _client() -> Path:
    found = engine.find()
    if found is None:
        raise ClusterError("no Docker engine answers; start one, or run: make kind-up")
    return found.client


def docker(*arguments: str | Path, doing: str, cwd: Path | None = None, stdin: str = "") -> str:
    """What the client prints. Raises ClusterError."""
    return shell.run([_client(), *arguments], doing=doing, cwd=cwd, stdin=stdin.encode())


def has_image(name: str) -> bool:
    """Whether the engine holds that image."""
    return bool(docker("image", "ls", "--quiet", name, doing="Looking for an image"))
