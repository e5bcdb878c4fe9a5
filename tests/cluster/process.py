"""Starting and stopping the programs of a control plane.

Every program has its own log file and belongs to the process group of the plane's keeper (see
`keeper.py`): a Ctrl-C in the terminal reaches the owner only, which then decides in which order
things end. A program is only ever signalled through the handle that started it.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.cluster.errors import ClusterError

POLL_INTERVAL_S = 0.03
LOG_TAIL_LINES = 15


class Keeper:
    """The process that ends a plane with its owner; its process group is the plane's."""

    def __init__(self, folder: Path) -> None:
        script = Path(__file__).with_name("keeper.py")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(script), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )

    @property
    def group(self) -> int:
        """The process group that the plane's programs join."""
        return self._process.pid

    def release(self) -> None:
        """Let it go without a deed: the owner has cleaned up itself."""
        # Not communicate(): a keeper that somebody killed has nothing left to be told.
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"\n")
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        self._process.wait()


class Program:
    """One program: started, waited for, stopped, killed, started again; always with the same arguments."""

    def __init__(self, name: str, argv: Sequence[str], *, folder: Path, log: Path, group: int) -> None:
        self.name = name
        self.argv = list(argv)
        self.log = log
        self._folder = folder
        self._group = group
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, or None while it does not run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start it; its output is appended to `log`. Its working directory is the plane's folder."""
        if self.pid is not None:
            raise ClusterError(f"{self.name} runs already (process {self.pid})")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=self._group,
            )

    def stop(self, timeout_s: float = 30.0) -> None:
        """Ask it to end (SIGTERM) and wait; after `timeout_s` kill it. Does nothing if it does not run."""
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone. Does nothing if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def wait_until(self, ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Poll `ready` until it holds.

        Raises ClusterError with the tail of the log as soon as the program has died, or after `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while not ready():
            process = self._process
            if process is None or process.poll() is not None:
                code = "was never started" if process is None else f"ended with code {process.returncode}"
                raise ClusterError(f"{self.name} {code} before it was ready\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ClusterError(f"{self.name} was not ready within {timeout_s:.0f} s\n{self.tail()}")
            time.sleep(POLL_INTERVAL_S)

    def tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """The last `lines` lines of its log, indented, under the log's name."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        shown = [f"  {line[:300]}" for line in text.splitlines()[-lines:]]
        return "\n".join([f"last lines of {self.log.name}:", *(shown or ["  (empty)"])])
