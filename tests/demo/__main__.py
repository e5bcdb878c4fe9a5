"""Tells the story once (with CI=true, or when its output is no terminal), or stays until Ctrl-C.

Exit codes: 0 all was as told, 1 something was not, 3 a program could not be had or did not start,
130 or 143 stopped by a signal before the end.
"""

import os
import signal
import sys
import time
from contextlib import ExitStack
from types import FrameType

from rich.console import Console
from rich.live import Live

from tests.cluster import ApiError, ClusterError
from tests.cluster.progress import live_report
from tests.demo import story, view
from tests.demo.scene import DemoError, Scene

REFRESH_S = 0.5
NOT_AS_TOLD, UNUSABLE = 1, 3
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """SIGINT or SIGTERM; not an Exception, so that nothing on the way takes it for an error."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main() -> int:
    out, err = Console(), Console(stderr=True)
    for number in _SIGNALS:
        signal.signal(number, _stop)
    told = False
    try:
        with ExitStack() as stack:
            with live_report(err) as report:
                report("Starting etcd, kube-apiserver and wholepod")
                scene = stack.enter_context(Scene(report=report))
            # Called first at the end: a second Ctrl-C must not leave half of the stage behind.
            stack.callback(_ignore_signals)
            end = story.tell(scene, out)
            told = True
            if _once(out):
                out.print(view.outcome(end))
                out.print(
                    "\nAll as told. Run it in a terminal to keep the cluster and poke at it with kubectl."
                )
            else:
                _stay(scene, out)
    except Stopped as stopped:
        return 0 if told else 128 + stopped.number
    except (DemoError, ClusterError, ApiError, OSError) as error:
        err.print(f"Error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return NOT_AS_TOLD if isinstance(error, DemoError) else UNUSABLE
    return 0


def _once(console: Console) -> bool:
    return not console.is_terminal or os.environ.get("CI", "").lower() not in ("", "0", "false")


def _stay(scene: Scene, console: Console) -> None:
    """Shows the cluster as it changes, until a signal comes."""
    console.print(view.heading("Your turn, in another terminal"))
    console.print(story.hints(scene), soft_wrap=True, highlight=False, end="")
    console.print(view.heading("Until Ctrl-C, live:"))
    with Live(console=console, auto_refresh=False) as live:
        while True:
            scene.end_terminating()
            live.update(view.now(scene.snapshot(), console), refresh=True)
            time.sleep(REFRESH_S)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


def _ignore_signals() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
