"""Runs the campaign, tells how it goes, and writes the report.

Exit codes: 0 all held, 1 something did not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.campaign import Fault, Result, all_faults, run, some_faults
from tests.faults.eyes import Point
from tests.faults.report import commit_now, write
from tests.faults.stage import Stage

REPORT = Path(__file__).parents[2] / "docs" / "reports" / "gang-faults.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--some", type=int, metavar="N", help="N faults of all, spread over points and ways")
    names = [point.value for point in Point]
    parser.add_argument("--points", choices=names, default=names, nargs="+", help="these steps alone")
    parser.add_argument("--report", type=Path, default=REPORT, help="where the report goes (%(default)s)")
    arguments = parser.parse_args()
    faults = all_faults() if arguments.some is None else some_faults(arguments.some)
    faults = [fault for fault in faults if fault.point.value in arguments.points]
    commit = commit_now()
    results = _run(faults)
    if len(faults) == len(all_faults()):
        write(results, arguments.report, commit=commit)
        print(f"report: {arguments.report}")
    broken = [result for result in results if result.broken]
    for result in broken:
        print(f"BROKEN: {result.fault}: {result.broken}", file=sys.stderr)
    return 1 if broken else 0


def _run(faults: list[Fault]) -> list[Result]:
    results: list[Result] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wholepod-faults-") as folder, Stage(Path(folder)) as stage:
        for result in run(stage, faults):
            results.append(result)
            elapsed_s = time.monotonic() - started
            left_s = elapsed_s / len(results) * (len(faults) - len(results))
            print(
                f"{len(results):4} of {len(faults)}, {left_s / 60:3.0f} min left: {result.fault}: "
                f"{result.broken or 'held'} ({result.seconds:.1f} s)",
                flush=True,
            )
            if result.broken:
                for scheduler in stage.schedulers:
                    scheduler.show_log()
    return results


if __name__ == "__main__":
    sys.exit(main())
