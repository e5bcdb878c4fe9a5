"""Building the programs of a control plane from pinned Go modules.

One `go build` makes all programs of a module that are missing, since they share most of their
packages. A lock keeps two builds apart (the second then finds everything done), and a program enters
the cache by a rename, so a cache never holds half a program.
"""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.assets import BUILD_ENVIRONMENT, Pin, Report, cache_folder, linker_flags
from tests.cluster.errors import ClusterError

REPORT_INTERVAL_S = 0.5
ERROR_LINES = 25


def build(programs: Sequence[Pin], *, report: Report) -> None:
    """Build `programs` into the cache folders of their modules; those that are there are left alone.

    Raises ClusterError when Go is missing or too old, or with the compiler's last words.
    """
    for folder in dict.fromkeys(program.folder for program in programs):
        of_module = [program for program in programs if program.folder == folder]
        into = cache_folder(of_module[0])
        into.mkdir(parents=True, exist_ok=True)
        with lock(into.parent / f"{into.name}.lock", report):
            missing = [program for program in of_module if not (into / program.name).exists()]
            if missing:
                _build_module(folder, missing, into, report)


def _build_module(folder: Path, programs: Sequence[Pin], into: Path, report: Report) -> None:
    names = ", ".join(program.name for program in programs)
    _check_go(folder, names)
    with tempfile.TemporaryDirectory(prefix="build-", dir=into) as scratch:
        # Built one by one, a program may be named; built together, `go build` wants a folder and names
        # them after their packages, which are the programs' names for all that share a module.
        target = f"{scratch}/{programs[0].name}" if len(programs) == 1 else f"{scratch}/"
        tool = ["go", "test", "-c"] if programs[0].is_test else ["go", "build", "-v"]
        command = [*tool, "-tags", programs[0].tags, "-ldflags", linker_flags(programs[0]), "-o", target]
        _run([*command, *(program.package for program in programs)], folder, names, report)
        for program in programs:
            os.replace(f"{scratch}/{program.name}", into / program.name)


def _run(command: Sequence[str], folder: Path, names: str, report: Report) -> None:
    started = time.monotonic()
    tail: deque[str] = deque(maxlen=ERROR_LINES)
    packages = 0
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **BUILD_ENVIRONMENT},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None

    def read() -> None:
        nonlocal packages
        assert process.stderr is not None
        for line in process.stderr:
            packages += not line.startswith("go: ")
            tail.append(line.rstrip())

    reader = threading.Thread(target=read, name="go-build-output", daemon=True)
    reader.start()
    try:
        while process.poll() is None:
            elapsed_s = time.monotonic() - started
            doing = f", {packages} packages compiled, now {tail[-1]}" if tail else ""
            report(f"Building {names} (once, it takes minutes): {elapsed_s:.0f} s{doing}")
            time.sleep(REPORT_INTERVAL_S)
    finally:
        # Ctrl-C reaches `go` as well; anything else that ends us must not leave it running.
        process.terminate()
        process.wait()
        reader.join()
        process.stderr.close()
    if process.returncode:
        raise ClusterError(
            f"building {names} failed (go build, code {process.returncode}):\n" + "\n".join(tail)
        )


def _check_go(folder: Path, names: str) -> None:
    needed = re.search(r"^go (\d+)\.(\d+)", (folder / "go.mod").read_text(), re.MULTILINE)
    assert needed is not None
    problem = f"{names} must be built, which needs Go {needed[1]}.{needed[2]} or newer"
    cure = "install it, or put the programs into a folder and name it in WHOLEPOD_ASSETS"
    if shutil.which("go") is None:
        raise ClusterError(f"{problem}, and there is no go on PATH: {cure}")
    answer = subprocess.run(["go", "env", "GOVERSION", "GOTOOLCHAIN"], capture_output=True, text=True)
    found = re.match(r"go(\d+)\.(\d+)", answer.stdout)
    if found is None:
        raise ClusterError(f"`go env` does not work: {answer.stderr.strip() or answer.stdout.strip()}")
    have = (int(found[1]), int(found[2]))
    # Since 1.21 an older Go fetches the toolchain that go.mod asks for, unless it is told not to.
    fetches = have >= (1, 21) and not answer.stdout.rstrip().endswith("local")
    if have < (int(needed[1]), int(needed[2])) and not fetches:
        raise ClusterError(f"{problem}, and the one on PATH is {have[0]}.{have[1]}: {cure}")


@contextmanager
def lock(path: Path, report: Report) -> Iterator[None]:
    """Keep others that build the same out until the block ends; the kernel lets go, whatever happens."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("Another build is under way; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
