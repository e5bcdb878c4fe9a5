"""The docker client, as a function."""

import subprocess
from pathlib import Path

from tests.cluster.errors import ClusterError

TAIL_LINES = 25


def run(*argv: str | Path, doing: str, cwd: Path | None = None, stdin: str = "") -> str:
    """What a program prints on standard output. Raises ClusterError with the end of what it said."""
    try:
        done = subprocess.run(argv, cwd=cwd, input=stdin, capture_output=True, text=True, errors="replace")
    except FileNotFoundError:
        raise ClusterError(f"{doing}: there is no {argv[0]} on PATH") from None
    if done.returncode:
        said = "\n".join(f"  {line}" for line in f"{done.stdout}{done.stderr}".splitlines()[-TAIL_LINES:])
        raise ClusterError(f"{doing}: {argv[0]} failed (code {done.returncode})\n{said}")
    return done.stdout


def docker(*arguments: str | Path, doing: str, cwd: Path | None = None, stdin: str = "") -> str:
    """What the client prints. Raises ClusterError."""
    return run("docker", *arguments, doing=doing, cwd=cwd, stdin=stdin)


def has_image(name: str) -> bool:
    """Whether the engine holds that image."""
    return bool(docker("image", "ls", "--quiet", name, doing="Looking for an image"))
