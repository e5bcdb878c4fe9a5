"""How long work (a build) is shown: one changing line on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from tests.cluster.assets import Report

PLAIN_INTERVAL_S = 15.0


def plain_report() -> Report:
    """Lines on standard error, at most one every `PLAIN_INTERVAL_S`: for logs and test runners."""
    last = -PLAIN_INTERVAL_S

    def report(line: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PLAIN_INTERVAL_S:
            last = now
            print(line, file=sys.stderr, flush=True)

    return report


@contextmanager
def live_report(console: Console) -> Iterator[Report]:
    """A status line with a spinner, or plain lines where `console` is no terminal."""
    if not console.is_terminal:
        yield plain_report()
        return
    with console.status("Starting") as status:
        yield lambda line: status.update(line)
