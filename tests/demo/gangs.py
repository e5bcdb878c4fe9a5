"""The third act: A and B as a gang of two pods, under each strategy, and what each costs.

A is there a while before B, so that what becomes of A's place meanwhile can be seen, and paid for.
"""

import time
from dataclasses import dataclass

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tests.demo import view
from tests.demo.scene import HERE, DemoError, GangState, Scene, series

STRATEGIES = ("atomic", "hoarding", "optimistic")
ALONE_S = 1.0
"""How long A waits for B."""
HELD = "wholepod_gang_held_memory_byte_seconds_total"


@dataclass(frozen=True)
class Cost:
    """Of one gang; memory held in byte-seconds."""

    strategy: str
    while_alone: str
    """The gang's state while B was missing."""
    used: float
    wasted: float
    rollbacks: float
    conflicts: float
    seconds: float
    """From B's coming until both were bound."""


def tell(scene: Scene, console: Console) -> None:
    """All strategies, one after the other. Raises DemoError when one does not do as told."""
    console.print(
        view.heading("3. As a gang: two pods that must share a node, placed together or not at all")
    )
    costs: list[Cost] = []
    for strategy in STRATEGIES:
        if costs:
            for name in _names(costs[-1].strategy):
                scene.delete(name)
        costs.append(_play(scene, strategy))
        console.print(Text.assemble((f"{strategy}: ", "bold"), _STORIES[strategy]), highlight=False)
    console.print(
        f"Each gang ended with both pods on node-b. A was alone for {ALONE_S:.0f} s; what that cost (memory "
        "held in GiB times seconds):",
        highlight=False,
    )
    console.print(Padding(_table(costs), (0, 0, 0, 2)))
    for cost in costs:
        _check(cost)


_STORIES = {
    "atomic": "A waits for B; nothing is placed, and nothing is held.",
    "hoarding": "A's place on node-a is held, from all others. B does not fit beside it: the hold is "
    "given up, and the whole gang is planned anew.",
    "optimistic": "A's place on node-a is claimed, which keeps nobody out. B does not fit beside it: the "
    "claim is rolled back, and the whole gang is planned anew.",
}
_ALONE = {
    "atomic": ("incomplete", ""),
    "hoarding": ("holding", "node-a"),
    "optimistic": ("claimed", "node-a"),
}
"""State of the gang, and node that A has a place on, as `wholepod gangs` shows them."""


def _play(scene: Scene, strategy: str) -> Cost:
    a, b = _names(strategy)
    before, file = scene.snapshot().metrics, HERE / "pods" / f"gang-{strategy}.yaml"
    scene.apply(file, a)
    state, node = _ALONE[strategy]
    alone = GangState(state, {a: node})
    scene.wait_for_gang(strategy, alone)
    time.sleep(ALONE_S)
    came = time.monotonic()
    scene.apply(file, b)
    snapshot = scene.wait_for(
        lambda now: bool(now.node_of(a) and now.node_of(b)), f"the gang {strategy} was not placed"
    )
    seconds = time.monotonic() - came
    for name in (a, b):
        if snapshot.node_of(name) != "node-b":
            raise DemoError(
                f"this is not what was to be shown: pod {name} should be on node-b, and is on "
                f"{snapshot.node_of(name)}"
            )
    scene.wait_for_gang(strategy, GangState("bound", {a: "node-b", b: "node-b"}))
    after = scene.snapshot().metrics

    def grown(name: str, **labels: str) -> float:
        key = series(name, strategy=strategy, **labels)
        return after.get(key, 0.0) - before.get(key, 0.0)

    return Cost(
        strategy,
        while_alone=state,
        used=grown(HELD, outcome="used"),
        wasted=grown(HELD, outcome="wasted"),
        rollbacks=grown("wholepod_gang_rollbacks_total"),
        conflicts=grown("wholepod_gang_conflicts_total"),
        seconds=seconds,
    )


def _names(strategy: str) -> tuple[str, str]:
    return f"{strategy}-a", f"{strategy}-b"


def _check(cost: Cost) -> None:
    """Raises DemoError when it is not what this strategy costs."""
    wasteful = cost.strategy == "hoarding"
    rolls_back = cost.strategy != "atomic"
    held_long = cost.wasted >= 0.9 * ALONE_S * view.GIB
    # The plan that was good was held only while it was made.
    if cost.rollbacks != rolls_back or cost.conflicts or held_long != wasteful or cost.used > cost.wasted:
        raise DemoError(f"this is not what was to be shown: {cost}")


def _table(costs: list[Cost]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("strategy", no_wrap=True)
    table.add_column("A alone", no_wrap=True)
    for heading in ("held: used", "wasted", "rollbacks", "conflicts", "to gang"):
        table.add_column(heading, justify="right", no_wrap=True)
    for cost in costs:
        table.add_row(
            cost.strategy,
            cost.while_alone,
            f"{cost.used / view.GIB:.1f}",
            f"{cost.wasted / view.GIB:.1f}",
            f"{cost.rollbacks:.0f}",
            f"{cost.conflicts:.0f}",
            f"{cost.seconds:.1f} s",
        )
    return table
