"""What the demo looks like: nodes as bars of memory, events, metrics; for 80 columns and more.

Bars are drawn to one scale, so that node-b is as much longer than node-a as it is larger. Each
container is a piece of its own, in turns dark and light, which reads without colours too.
"""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tests.demo.scene import EventState, NodeState, PodState, Snapshot, series

GIB = 1 << 30
SHOWN_EVENTS = 6
_OTHER_COLUMNS = 56
"""What the table needs beside the longest bar."""
_BAR_COLUMNS = (8, 40)
_STYLES = ("cyan", "magenta")
_BLOCKS, _ASCII = ("█", "▓", "░"), ("#", "=", ".")

ALLOCATABLE = series("wholepod_node_memory_bytes", state="allocatable")
REQUESTED = series("wholepod_node_memory_bytes", state="requested")
SCHEDULED = series("scheduler_schedule_attempts_total", result="scheduled")
UNSCHEDULABLE = series("scheduler_schedule_attempts_total", result="unschedulable")


def gib(memory_bytes: float) -> str:
    return f"{memory_bytes / GIB:.4g} GiB"


def nodes(snapshot: Snapshot, console: Console) -> Table:
    """A row per node, and one for the pods that wait."""
    table = Table("node", "memory", "", "pods", box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.columns[0].no_wrap = table.columns[1].no_wrap = table.columns[2].no_wrap = True
    scale = _scale(snapshot.nodes, console)
    for node in snapshot.nodes:
        here = [pod for pod in snapshot.pods if pod.node == node.name]
        used = sum(pod.memory_bytes for pod in here)
        table.add_row(
            node.name + (" (cordoned)" if node.cordoned else ""),
            _bar(node, here, scale, console),
            f"{used / GIB:.2f} of {node.memory_bytes / GIB:.2f} GiB",
            _names(here),
        )
    waiting = [pod for pod in snapshot.pods if not pod.node]
    if waiting:
        table.add_row(
            Text("waiting", "yellow"), "", gib(sum(p.memory_bytes for p in waiting)), _names(waiting)
        )
    return table


def events(recent: Sequence[EventState]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for event in recent[-SHOWN_EVENTS:]:
        style = "green" if event.reason == "Scheduled" else "yellow"
        table.add_row(Text(event.reason, style), Text(event.note))
    return table


def metrics(values: dict[str, float]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(overflow="fold")
    table.add_column(no_wrap=True, justify="right")
    for key in (ALLOCATABLE, REQUESTED):
        table.add_row(Text(key), gib(values.get(key, 0)))
    for key in (SCHEDULED, UNSCHEDULABLE):
        table.add_row(Text(key), f"{values.get(key, 0):.0f}")
    return table


def outcome(snapshot: Snapshot) -> RenderableType:
    """What Wholepod says of its work."""
    return Group(heading("Events"), events(snapshot.events), heading("Metrics"), metrics(snapshot.metrics))


def now(snapshot: Snapshot, console: Console) -> RenderableType:
    """Everything that changes."""
    return Group(nodes(snapshot, console), outcome(snapshot))


def heading(text: str) -> Text:
    return Text(f"\n{text}", "bold")


def _scale(shown: Sequence[NodeState], console: Console) -> float:
    """Columns per byte."""
    largest = max((node.memory_bytes for node in shown), default=0)
    low, high = _BAR_COLUMNS
    columns = min(max(console.width - _OTHER_COLUMNS, low), high)
    return columns / max(largest, 1)


def _bar(node: NodeState, pods: Sequence[PodState], scale: float, console: Console) -> Text:
    blocks = _BLOCKS if console.encoding.startswith("utf") else _ASCII
    bar = Text()
    pieces = [memory for pod in pods for _, memory in pod.parts]
    used = 0
    for k, memory in enumerate(pieces):
        used += memory
        columns = round(used * scale) - len(bar)  # from the sum, so that rounding does not add up
        bar.append(blocks[k % 2] * columns, _STYLES[k % 2])
    bar.append(blocks[2] * max(round(node.memory_bytes * scale) - len(bar), 0), "dim")
    return bar


def _names(pods: Sequence[PodState]) -> str:
    """`a 1 GiB, ab (a 1 GiB + b 0.5 GiB)`."""
    texts = []
    for pod in pods:
        if len(pod.parts) > 1:
            texts.append(f"{pod.name} ({' + '.join(f'{name} {gib(memory)}' for name, memory in pod.parts)})")
        else:
            texts.append(f"{pod.name} {gib(pod.memory_bytes)}")
    return ", ".join(texts)
