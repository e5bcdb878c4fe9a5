"""The bench's own parts on cases small enough to check by hand."""

from pathlib import Path

import pytest

from tests.bench.packing.bounds import least_nodes
from tests.bench.packing.policies import Policy, memory_fit, simple_policies
from tests.bench.packing.replay import fill, mixes_seen, nodes_needed
from tests.bench.packing.traces import BATCH, WAGAP, Task, TraceError, batch_tasks, wagap_windows

GIB = 2**30
NODE = (4000, 4 * GIB)
EVERY_POLICY = [*(memory_fit(o) for o in ("expected", "tight", "balanced", "spread")), *simple_policies()]


def named(name: str) -> Policy:
    return next(policy for policy in EVERY_POLICY if policy.name == name)


@pytest.mark.parametrize(
    ("sizes", "nodes"),
    [
        ([], 0),
        ([1, 1, 1], 1),
        ([5] * 4, 2),  # by volume
        ([6] * 4, 4),  # no two fit together, though their volume fits three
        ([7, 7, 4, 4], 3),  # the two of 4 find no room beside a 7, but share a node
    ],
)
def test_the_bound_counts_volume_and_what_cannot_share(sizes: list[float], nodes: int) -> None:
    assert least_nodes(sizes, 10) == nodes


@pytest.mark.parametrize("policy", EVERY_POLICY, ids=lambda policy: policy.name)
def test_every_policy_places_what_fits_exactly(policy: Policy) -> None:
    pods = [(2000, 2 * GIB)] * 6
    mixes = list(mixes_seen(Task(1, request) for request in pods))
    assert nodes_needed(policy, NODE, pods, mixes, at_least=1) == 3
    tasks = [Task(3, (1000, GIB)), Task(9, (1000, GIB)), Task(5, (1000, GIB))]
    # The gang of nine does not fit and leaves no trace; the one of five fills the rest.
    assert fill(policy, NODE, 2, tasks, list(mixes_seen(tasks))) == (1.0, 1.0)


def test_spreading_needs_more_nodes_than_packing() -> None:
    pods = [(1000, GIB), (1000, GIB), (4000, 4 * GIB)]
    mixes = list(mixes_seen(Task(1, request) for request in pods))
    assert nodes_needed(memory_fit("tight"), NODE, pods, mixes, at_least=2) == 2
    assert nodes_needed(named("kube-scheduler's default"), NODE, pods, mixes, at_least=2) == 3


def test_packing_by_memory_strands_what_spreading_uses() -> None:
    tasks = [Task(4, (1000, GIB // 4)), Task(4, (1000, GIB // 4)), Task(6, (0, GIB))]
    mixes = list(mixes_seen(tasks))
    assert fill(memory_fit("balanced"), NODE, 2, tasks, mixes) == (1.0, 1.0)
    tasks = [Task(4, (250, GIB)), Task(4, (1000, GIB // 4)), Task(3, (750, GIB // 4))]
    mixes = list(mixes_seen(tasks))
    assert (
        fill(memory_fit("tight"), NODE, 2, tasks, mixes)[0]
        < fill(memory_fit("balanced"), NODE, 2, tasks, mixes)[0]
    )


def test_traces_are_read_in_arrival_order(tmp_path: Path) -> None:
    (tmp_path / BATCH).parent.mkdir()
    (tmp_path / BATCH).write_text(
        "submit_time,duration,cpu,memory,job_id,task_id,instances_num,disk\n"
        "20,1,0.5,0.5,1,1,3.0,0\n10,1,2,0.25,2,1,1.0,0\n"
    )
    assert batch_tasks(tmp_path) == [Task(1, (2000, 2**36)), Task(3, (500, 2**37))]
    (tmp_path / WAGAP).parent.mkdir()
    line = "{i} 0 0 {run} {cores} 0 0 {cores} 0 1024 0 0 0 0 0 0 0 0 {{}} q {spec}\n"
    whole = [(4, "1:ppn=4"), (4, "2:ppn=2:x"), (6, "1:ppn=2+2:ppn=2"), (6, "2"), (90, "1:ppn=90")]
    text = "".join(line.format(i=i, run=5, cores=c, spec=s) for i, (c, s) in enumerate(whole))
    text += line.format(i=9, run=-1, cores=1, spec="1:ppn=1")
    (tmp_path / WAGAP).write_text(text * 125)
    [window] = wagap_windows(tmp_path)
    assert window[:8] == [(4000, 1024), *[(2000, 1024)] * 5, *[(3000, 1024)] * 2]
    assert len(window) == 125 * 8


def test_a_missing_trace_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"wagap-2013\.swf: No such file"):
        wagap_windows(tmp_path)
