"""Judges a scheduler's preemptions from its log: could one of the victims have stayed?

The log (level debug) has all that changed the scheduler's picture of the cluster, in order: its decisions
and the pods that went. So each preemption can be replayed on the picture that it was made on, with
nothing but additions. It shares no code with the scheduler.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Pod:
    name: str
    cpu_milli: int
    memory_mib: int
    priority: int
    node: str = ""
    app: int = 0


class Room(NamedTuple):
    cpu_milli: int
    memory_mib: int
    pods: int


class Wrong(NamedTuple):
    """`victim` could have stayed beside `preemptor`, or (no victim) all victims together were too few."""

    preemptor: str
    victim: str


def judge(log: Iterable[dict[str, Any]], pods: Iterable[Pod], room: Room) -> tuple[int, list[Wrong]]:
    """How many preemptions there were, and what is wrong with them. `room` is that of each node."""
    known = {pod.name: pod for pod in pods}
    on_node: dict[str, dict[str, Pod]] = defaultdict(dict)
    nominated: dict[str, str] = {}
    for pod in known.values():
        if pod.node:
            on_node[pod.node][pod.name] = pod
    condemned: set[str] = set()
    """Victims of earlier preemptions are leaving anyway."""
    count, wrong = 0, []
    for record in log:
        name = record.get("pod", "").rpartition("/")[2]
        match record["event"]:
            case "decided" if record["node"] is not None:
                nominated.pop(name, None)
                on_node[record["node"]][name] = known[name]
            case "decided" if record["nominated"] == "":
                nominated.pop(name, None)
            case "pod is gone":
                for there in on_node.values():
                    there.pop(name, None)
            case "preempting":
                count += 1
                node = record["node"]
                victims = [known[victim.rpartition("/")[2]] for victim in record["victims"]]
                promised = [
                    known[other] for other, where in nominated.items() if where == node and other != name
                ]
                staying = [pod for pod in on_node[node].values() if pod not in victims]
                future = [*staying, *promised, known[name]]
                if not _fits(future, room):
                    wrong.append(Wrong(name, ""))
                chosen = [victim for victim in victims if victim.name not in condemned]
                wrong += [Wrong(name, v.name) for v in chosen if _fits([*future, v], room)]
                condemned.update(victim.name for victim in chosen)
                nominated[name] = node
    return count, wrong


def _fits(pods: Iterable[Pod], room: Room) -> bool:
    held = list(pods)
    return (
        sum(pod.cpu_milli for pod in held) <= room.cpu_milli
        and sum(pod.memory_mib for pod in held) <= room.memory_mib
        and len(held) <= room.pods
    )
