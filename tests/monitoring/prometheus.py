"""A real Prometheus: the one on PATH (Debian's package will do), or one that tests/cluster builds."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.cluster import sources
from tests.cluster.ports import free_port
from tests.monitoring.expressions import RULES

DEADLINE_S = 60.0


@cache
def program(name: str) -> Path:
    """Its path. Raises ClusterError if it can't be had."""
    return sources.find([name], report=lambda line: None)[name].path


def promtool(*arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """What it says; the caller looks at the code."""
    return subprocess.run([program("promtool"), *arguments], input=stdin, capture_output=True, text=True)


class Prometheus:
    """Scrapes processes every second, and evaluates the rules. A context manager."""

    def __init__(self, folder: Path, jobs: Mapping[str, str]) -> None:
        """`jobs`: name → host:port."""
        self._folder, self._port = folder, free_port()
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in jobs.items()
            ],
        }
        self._config = folder / "prometheus.yaml"
        self._config.write_text(yaml.safe_dump(config))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program("prometheus"),
                    f"--config.file={self._config}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5).close()
            except OSError as error:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    log_text = (self._folder / "prometheus.log").read_text(errors="replace")
                    raise AssertionError(f"Prometheus did not start: {log_text[-2000:]}") from error
                time.sleep(0.2)
            else:
                return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(DEADLINE_S)

    def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """The instant vector. Raises AssertionError for what it refuses."""
        answer = self._ask("query", query=expression, **({} if at is None else {"time": str(at)}))
        found: list[dict[str, Any]] = answer["result"] if answer["resultType"] == "vector" else [answer]
        return found

    def query_range(self, expression: str, start: float, end: float, step_s: float) -> list[dict[str, Any]]:
        """The series, each with its values."""
        answer = self._ask(
            "query_range", query=expression, start=str(start), end=str(end), step=f"{step_s:g}"
        )
        found: list[dict[str, Any]] = answer["result"]
        return found

    def _ask(self, path: str, **parameters: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
                data: dict[str, Any] = json.load(answer)["data"]
                return data
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from error
