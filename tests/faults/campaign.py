"""Each step of a commit, each way to disturb it, each strategy: one fault after the other, on one cluster.

For each, several gangs are created at once. A trap is set at the step; when it has sprung, and what it broke
runs again, every gang has to end as it should, and nothing may be left behind.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from tests.faults.door import Trap, Way
from tests.faults.eyes import Point
from tests.faults.stage import SETTLE_S, Broken, Stage
from tests.integration.harness import eventually

STRATEGIES = ("atomic", "hoarding", "optimistic")
HEIRS = (Point.LEASE_TAKEN, Point.EPOCH_BUMPED, Point.FENCED)
"""Steps of the process that takes over."""
NEED_SHORT = (Point.BIND_REFUSED, Point.COMP_RECORDED, Point.COMP_PARTIAL, Point.COMP_DONE)
"""Steps of gangs that can't be completed."""


@dataclass(frozen=True)
class Fault:
    point: Point
    way: Way
    strategy: str

    def __str__(self) -> str:
        return f"{self.point.value}, {self.way.value}, {self.strategy}"


@dataclass(frozen=True)
class Result:
    """`broken`: what did not hold; empty if all did. `partial_s`: for how long a gang was bound in part at
    most, `seconds`: until all was settled."""

    fault: Fault
    seconds: float
    partial_s: float
    broken: str = ""


def all_faults() -> list[Fault]:
    return [Fault(*parts) for parts in product(Point, Way, STRATEGIES)]


def some_faults(number: int, seed: int = 1) -> list[Fault]:
    """Every point once or more, all ways and strategies; most of the ways that are over soon."""
    rng = random.Random(seed)
    weights = {Way.ANSWER_LOST: 6, Way.SIGKILL: 3, Way.API_KILLED: 2, Way.SIGSTOP: 1}
    points = [*Point]
    rng.shuffle(points)
    ways = [way for way, weight in weights.items() for _ in range(weight)]
    return [
        Fault(points[i % len(points)], ways[i % len(ways)], STRATEGIES[i % len(STRATEGIES)])
        for i in range(number)
    ]


def run(stage: Stage, faults: Iterable[Fault]) -> Iterator[Result]:
    """A result for each, as it is there."""
    for fault in faults:
        started, broken = time.monotonic(), ""
        stage.doors.ask(lambda eyes: eyes.begin())
        try:
            _play(stage, fault)
            stage.settle()
            stage.clear()
        except Broken as error:
            broken = str(error)
            stage.mend()
            stage.clear()
        seconds = time.monotonic() - started
        yield Result(fault, seconds, stage.doors.ask(lambda eyes: eyes.longest_partial_s), broken)


def _play(stage: Stage, fault: Fault) -> None:
    leader = stage.leader()
    trap = Trap(fault.point, fault.way)
    if fault.point is Point.FENCED:
        _return_of_the_former_leader(stage, fault, leader)
        return
    before = [Trap(Point.BIND_FIRST, Way.SIGKILL, door=leader)] if fault.point in HEIRS else []
    stage.doors.set_traps(*before, trap)
    _create_gangs(stage, fault)
    _wait_for(stage, trap)
    _mend(stage, trap)


def _create_gangs(stage: Stage, fault: Fault) -> None:
    if fault.point is Point.VICTIMS_PARTIAL:
        stage.add_gang(fault.strategy, high=True)
        stage.settle()
        stage.add_victims()
        for _ in range(2):
            stage.add_preemptor()
        return
    for _ in range(2):
        stage.add_gang(fault.strategy)
    stage.add_gang(fault.strategy, short=fault.point in NEED_SHORT)


def _wait_for(stage: Stage, trap: Trap) -> None:
    def sprung() -> bool:
        stage.keep_running()
        return trap.sprung.is_set()

    try:
        eventually(sprung, "the point is reached", timeout_s=SETTLE_S)
    except AssertionError as error:
        raise Broken("the point was never reached") from error


def _mend(stage: Stage, trap: Trap) -> None:
    if trap.way is Way.SIGSTOP:
        stage.wait_leads(1 - trap.who)
    stage.mend()


def _return_of_the_former_leader(stage: Stage, fault: Fault, former: int) -> None:
    """It was stopped in the middle of a commit, past its lease. Its heir has counted up the epoch when it
    comes back, and is hit at the same moment."""
    stop = Trap(Point.BIND_FIRST, Way.SIGSTOP, door=former)
    fenced = Trap(Point.EPOCH_BUMPED, fault.way, door=1 - former, also=stage.schedulers[former].resume)
    stage.doors.set_traps(stop, fenced)
    _create_gangs(stage, fault)
    _wait_for(stage, fenced)
    _mend(stage, fenced)
