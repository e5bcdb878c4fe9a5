"""Takes the leader away many times, updates all replicas, tells how it goes, and writes the report.

Exit codes: 0 all held, 1 something did not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.failover import report
from tests.failover.campaign import Settings, Stage, Way, run
from tests.failover.warm import measure
from tests.faults.report import commit_now

REPORT = Path(__file__).parents[2] / "docs" / "reports" / "failover.md"
WAYS = [*[Way.SIGKILL, Way.CUT] * 5, *[Way.SIGSTOP] * 3, *[Way.SIGTERM] * 5]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.failover", description=__doc__)
    parser.add_argument("--updates", type=int, default=3, help="rolling updates at the end (%(default)s)")
    parser.add_argument("--report", type=Path, default=REPORT, help="where the report goes (%(default)s)")
    arguments = parser.parse_args()
    commit, settings = commit_now(), Settings()
    with tempfile.TemporaryDirectory(prefix="wholepod-failover-") as folder:
        warm = measure(Path(folder))
        print(
            f"{warm.nodes} nodes and {warm.pods} pods: a standby binds {warm.takeover_s:.2f} s after it got "
            f"the lease, and takes {warm.standby_memory_bytes / 2**20:.0f} MiB",
            flush=True,
        )
    with tempfile.TemporaryDirectory(prefix="wholepod-failover-") as folder:
        with Stage(Path(folder), settings) as stage:
            failovers = []
            for result in run(stage, WAYS):
                failovers.append(result)
                print(
                    f"{len(failovers):3} of {len(WAYS)}: {result.way.value}: another one binds after "
                    f"{result.failover_s:.2f} s, having listed {', '.join(result.lists) or 'nothing'}; the "
                    f"process ended with code {result.exit_code} in {result.ended_s:.2f} s",
                    flush=True,
                )
            updates = []
            for _ in range(arguments.updates):
                update = stage.update(stage.users)
                updates.append(update)
                print(
                    f"updated {update.replicas} replicas in {update.seconds:.1f} s, {update.binds} binds, "
                    f"the longest pause was {update.pause_s:.2f} s",
                    flush=True,
                )
            problems = stage.verdict()
            if problems:
                stage.show_logs()
            stream = report.Stream(
                pods=stage.stream.created + stage.stream.replaced,
                gangs=stage.stream.gangs,
                replaced=stage.stream.replaced,
                binds=len(stage.audit.binds),
                fullest=stage.witness.fullest,
            )
        problems += [] if warm.consistent else ["the standby's cache differed from the API server's"]
        arguments.report.write_text(
            report.page(failovers, updates, warm, problems, stream, settings, commit=commit)
        )
    print(f"report: {arguments.report}")
    for problem in problems:
        print(f"BROKEN: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
