"""Running the programs that do the work; an error says what was being done and how it went wrong."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.errors import ClusterError

TAIL_LINES = 25
TIMEOUT_S = 1800.0


def run(
    argv: Sequence[str | Path],
    *,
    doing: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    timeout_s: float = TIMEOUT_S,
) -> str:
    """What it prints on standard output. Raises ClusterError with the end of what it said besides."""
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            cwd=cwd,
            env=env,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout_s,
        )
    except FileNotFoundError:
        raise ClusterError(f"{doing}: there is no {argv[0]}") from None
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{doing}: {Path(argv[0]).name} was not done after {timeout_s:.0f} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").splitlines()[-TAIL_LINES:]
        raise ClusterError(
            f"{doing}: {Path(argv[0]).name} failed (code {done.returncode})\n"
            + "\n".join(f"  {line}" for line in said)
        )
    return done.stdout.decode(errors="replace")
