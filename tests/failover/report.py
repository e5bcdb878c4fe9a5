"""The campaign's report, as a page of the documentation."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tests.failover.campaign import REPLICAS, Failover, Settings, Update, Way
from tests.failover.stream import GANG_SIZE, NODES, UNITS_PER_NODE
from tests.failover.warm import Warm

_HEAD = f"""\
# Leaders that die, fall silent or are replaced

Made by `make failover`: a real API server, {NODES} nodes and {REPLICAS} replicas of Wholepod, each behind a
proxy of its own, with the default settings of the lease. Pods come in a steady stream, some of them in
gangs of {GANG_SIZE} under each strategy, and old ones go, so that the nodes are always nearly full. The
replica that leads is killed (`SIGKILL`), cut off from the API server (nothing passes, and nobody is told),
stopped until another one leads and then let go on, or ended in good order (`SIGTERM`). What has ended is
started anew, as by a Deployment. At the end all replicas are updated one after the other, the leader last.

The API server's audit log tells who did what, as each replica has a user of its own, and a watch sees what
came of it. It *held* if every pod was bound, none twice, no node was ever given more than it has, every
bind was by the one that held the lease, within the renewal deadline of its last renewal, `leaseTransitions`
grew by one with each holder, and the lease was nobody's at the end.
"""


@dataclass(frozen=True)
class Stream:
    """How much was bound meanwhile."""

    pods: int
    gangs: int
    replaced: int
    binds: int
    fullest: int


def page(
    failovers: Sequence[Failover],
    updates: Sequence[Update],
    warm: Warm,
    problems: Sequence[str],
    stream: Stream,
    settings: Settings,
    *,
    commit: str,
) -> str:
    """`commit`: of which the code was when the run began."""
    lines = [
        _HEAD,
        f"## {'All held' if not problems else f'{len(problems)} things did not hold'}",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit}, {os.cpu_count()} CPUs, {platform.machine()}, "
        f"Kubernetes v1.37.2. leaseDuration {settings.lease_duration_s} s, renewDeadline "
        f"{settings.renew_deadline_s:g} s, retryPeriod {settings.retry_period_s:g} s.",
        "",
        f"{stream.pods} pods were created, {stream.gangs} gangs among them, and bound in {stream.binds} "
        f"binds; {stream.replaced} members of gangs were taken back and made anew. The fullest node ever "
        f"held {stream.fullest} units of {UNITS_PER_NODE}.",
        "",
    ]
    lines += [f"- {problem}" for problem in problems]
    lines += [
        "| the leader is hit by | times | until another one binds, s | the slowest | of it with the lease "
        "| listed by the heir | the process ends | exit code |",
        "| --- | ---: | --- | ---: | ---: | --- | --- | ---: |",
    ]
    for way in Way:
        of_way = [failover for failover in failovers if failover.way is way]
        if of_way:
            lines.append(_row(way, of_way))
    lines += [
        "",
        f"Asked for: less than 3 s after `SIGTERM`, less than the lease's duration and 2 s "
        f"({settings.lease_duration_s + 2} s) after `SIGKILL`. *The process ends* so long after the fault, "
        "or after it was let go on.",
        "",
        "| rolling update of | took | pods bound meanwhile | the longest time without a bind |",
        "| ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {update.replicas} replicas | {update.seconds:.1f} s | {update.binds} | {update.pause_s:.2f} s |"
        for update in updates
    ]
    mib = 2**20
    lines += [
        "",
        f"With {warm.nodes} nodes and {warm.pods} pods, and nobody else on the API server: a standby is "
        f"ready {warm.start_s:.1f} s after its start. It has the lease {warm.behind_s:.2f} s after the "
        f"leader's `SIGTERM`, and binds {warm.takeover_s:.2f} s later, having listed {', '.join(warm.lists)} "
        f"anew. The leader takes {warm.leader_memory_bytes / mib:.0f} MiB, the standby "
        f"{warm.standby_memory_bytes / mib:.0f} MiB; its cache was "
        f"{'that of the API server' if warm.consistent else 'not that of the API server'}.",
    ]
    return "\n".join(lines) + "\n"


def _row(way: Way, failovers: Sequence[Failover]) -> str:
    seconds = [failover.failover_s for failover in failovers]
    ended = [failover.ended_s for failover in failovers]
    lists = sorted({", ".join(failover.lists) or "nothing" for failover in failovers})
    codes = sorted({str(failover.exit_code) for failover in failovers})
    each = ", ".join(f"{value:.2f}" for value in seconds)
    return (
        f"| {way.value} | {len(failovers)} | {each} | {max(seconds):.2f} | "
        f"{max(failover.takeover_s for failover in failovers):.2f} | {'; or '.join(lists)} | "
        f"{min(ended):.2f} to {max(ended):.2f} s | {', '.join(codes)} |"
    )
