"""A running oracle, asked one document at a time."""

from __future__ import annotations

import os
import subprocess
import tempfile
from types import TracebackType
from typing import Any, Self

import msgspec

from tests.parity.build import oracle_program

Json = dict[str, Any]

# The oracle's parallelism is over nodes, of which there are few here, so threads only cost; and it
# lives long enough to collect garbage seldom.
ENVIRONMENT = {"GOMAXPROCS": "1", "GOGC": "400"}


FEATURE_GATES = "UserNamespacesHostNetworkSupport=true"
"""Lets pods through validation that only a cluster with this gate has; no plugin asks for it."""


class OracleError(RuntimeError):
    """The oracle gave up; the text is its last line."""


class Oracle:
    """Judges clusters; with `requests_only` it counts single pods' requests, with `profiles_only` it lists
    the plugins of configurations.

    Documents with objects that the API server would refuse are refused as well.
    """

    def __init__(self, *, requests_only: bool = False, profiles_only: bool = False) -> None:
        # A file, as nobody reads a pipe while the oracle works, and it would stop when that is full.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as the process)
        self._process = subprocess.Popen(
            [
                oracle_program(),
                "--validate",
                f"--feature-gates={FEATURE_GATES}",
                *(["--requests"] if requests_only else []),
                *(["--profiles"] if profiles_only else []),
            ],
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )

    def ask(self, document: Json) -> Json:
        """The verdict on one document. Raises OracleError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(msgspec.json.encode(document) + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            self._process.wait()
            self._log.seek(0)
            last_words = self._log.read().decode().strip()
            raise OracleError(f"the oracle ended at {document.get('name')}: {last_words}")
        verdict: Json = msgspec.json.decode(line)
        if verdict.get("error"):
            raise OracleError(f"the oracle could not judge {document.get('name')}: {verdict['error']}")
        return verdict

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
