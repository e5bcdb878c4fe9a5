"""The leader dies, falls silent, is cut off and is replaced during a stream of pods.

`python -m tests.failover` in short, with a short lease.
"""

from pathlib import Path

from tests.failover.campaign import Settings, Stage, Way, run

SHORT = Settings(lease_duration_s=5, renew_deadline_s=4.0, retry_period_s=0.5, rate=8.0)


def test_no_pod_is_lost_or_bound_twice_or_beyond_room_whoever_leads(tmp_path: Path) -> None:
    with Stage(tmp_path, SHORT) as stage:
        failovers = {result.way: result for result in run(stage, [*Way])}
        update = stage.update(stage.users)
        problems = stage.verdict()
        assert problems == []
    codes = {Way.SIGKILL: -9, Way.CUT: 3, Way.SIGSTOP: 3, Way.SIGTERM: 0}
    for way, result in failovers.items():
        assert result.exit_code in (codes[way], 3)  # on a busy machine a lease may be lost without our help
    # A standby has followed all along: what it lists anew are pods, once, and those of gangs left behind.
    lists = [result.lists for result in failovers.values() if result.warm]
    assert all(what.count("pods") == 1 and {*what} <= {"pods", "pods of a namespace"} for what in lists)
    assert lists
    assert update.binds > 0
