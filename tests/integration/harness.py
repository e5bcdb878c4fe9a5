"""The scheduler as a process: `wholepod run …` as an operator would run it.

It is known here by its log, its HTTP endpoints and its exit code alone, so nothing in it can be patched
or looked into. What it does to the cluster is for `observer.Observer` to see.
"""

import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from prometheus_client.parser import text_string_to_metric_families

Json = dict[str, Any]
T = TypeVar("T")

REPOSITORY = Path(__file__).parents[2]
WHOLEPOD = Path(sys.executable).with_name("wholepod")
DEADLINE_S = 120.0
"""Far beyond any normal wait: a noisy machine must not fail a test, a missing deed must."""
_POLL_S = 0.05
_SHOWN_LOG_LINES = 60


def eventually(get: Callable[[], T], what: str, *, timeout_s: float = DEADLINE_S) -> T:
    """The first true value of `get`; for what has no watch (a process, an HTTP endpoint)."""
    deadline = time.monotonic() + timeout_s
    while not (value := get()):
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(_POLL_S)
    return value


class Scheduler:
    """One run of `wholepod run …`; a context manager that starts it, and ends it if the test has not.

    A test that fails shows the end of the log. `command` may be another way to say `wholepod`;
    `environment` is added to this process's. Flags come last, so they win. `tls` is for asking one that
    serves with a certificate.
    """

    subcommand = "run"

    def __init__(
        self,
        *flags: str,
        kubeconfig: Path | None,
        log: Path,
        command: Sequence[str | Path] = (WHOLEPOD,),
        environment: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        where = [] if kubeconfig is None else [f"--kubeconfig={kubeconfig}"]
        self.argv: list[str | Path] = [
            *command,
            self.subcommand,
            *where,
            "--bind-address=127.0.0.1:0",
            *flags,
        ]
        self.log = log
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._tls = tls

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            if self.running:
                self.kill()  # one that never got ready must not outlive its test
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.show_log()
        if self.running:
            self.resume()
            self.terminate()

    # The process.

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, "never started"
        return self._process.pid

    def start(self) -> None:
        """Start it, and return when its caches are in sync. Used again after its end, it is a new process."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start it and return at once."""
        assert not self.running
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                self.argv,
                cwd=REPOSITORY,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Of its own, so that a Ctrl-C in the terminal reaches the tests first.
                process_group=0,
            )

    def wait_ready(self) -> None:
        """Until /readyz says so; fails at once if the process ends before."""
        eventually(self._is_ready, "the scheduler is ready")

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            self.show_log()
            raise AssertionError(
                f"the scheduler ended with code {self._process.returncode} before it was ready"
            )
        return self.said("started") and self.status("/readyz") == 200

    def pause(self) -> None:
        """SIGSTOP."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL; fails if it was dead already."""
        assert self.running, "it died by itself"
        self.signal(signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Until it ends; returns the exit code."""
        assert self._process is not None
        try:
            return self._process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    # What it says.

    def records(self, event: str | None = None) -> list[Json]:
        """Log lines of this run, in order; all of them, or those of one event. Other output is skipped."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            complete = log.read().rpartition(b"\n")[0].splitlines()
        records = [json.loads(line) for line in complete if line.startswith(b"{")]
        return [record for record in records if event in (None, record["event"])]

    def said(self, event: str) -> bool:
        return bool(self.records(event))

    def show_log(self) -> None:
        """Print the end of the log; pytest shows it with a failure."""
        lines = self.log.read_text(errors="replace").splitlines()
        print(f"--- last lines of {self.log.name}", *lines[-_SHOWN_LOG_LINES:], "---", sep="\n")

    # Its endpoints.

    @property
    def url(self) -> str:
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.records('started')[0]['port']}"

    def request(
        self, path: str, *, method: str = "GET", body: str | None = None, token: str | None = None
    ) -> tuple[int, str]:
        """(status, text) of any of its endpoints."""
        data = None if body is None else body.encode()
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_S, context=self._tls) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def text(self, path: str) -> str:
        """GET; fails for any status but 200."""
        status, text = self.request(path)
        assert status == 200, f"GET {path}: {status} {text}"
        return text

    def status(self, path: str) -> int:
        return self.request(path)[0]

    def metric(self, name: str, /, **labels: str) -> float:
        """Sum of a metric's samples that have these labels; 0 if there is none."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.text("/metrics"))
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def check_cache(self) -> None:
        """Fails if the scheduler's picture differs from the API server's."""
        answer = json.loads(self.text("/debug/cache-check"))
        assert answer["consistent"], answer["differences"]


class Controller(Scheduler):
    """The same for `wholepod controller …`."""

    subcommand = "controller"
