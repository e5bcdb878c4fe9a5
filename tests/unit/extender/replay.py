"""A real kube-scheduler's requests (recorded by tests/integration/record_extender.py), and who answers."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from scheduler.api import Pod
from scheduler.core.engine import Engine
from scheduler.core.pod_info import PodInfo
from scheduler.extender import wire
from scheduler.extender.verbs import UnknownNodes, Verbs
from tests.builders import decode_node, make_engine, make_profile

Json = dict[str, Any]
MODES = ("names", "nodes")


@dataclass(frozen=True)
class Recorded:
    """One request, and what was answered then."""

    verb: str
    request: Json
    answer: Any


@cache
def recorded(mode: str) -> tuple[list[Json], list[Recorded]]:
    """(the cluster's nodes, what was said in order)."""
    content = json.loads((Path(__file__).parent / "recorded" / f"{mode}.json").read_text())
    exchanges = [Recorded(each["verb"], each["request"], each["answer"]) for each in content["exchanges"]]
    return content["nodes"], exchanges


def encoded(value: Any) -> bytes:
    """As Go does it, without spaces."""
    return json.dumps(value, separators=(",", ":")).encode()


class Replay:
    """Verbs on a state that follows what kube-scheduler is told to do."""

    def __init__(self, nodes: list[Json], unknown_nodes: UnknownNodes = "refuse") -> None:
        self.engine: Engine = make_engine(None, make_profile("default-scheduler", preset="memory-fit"))
        self.engine.replace_nodes([decode_node(node) for node in nodes])
        self.verbs = Verbs(self.engine, unknown_nodes=unknown_nodes)

    def answer(self, verb: str, body: bytes) -> Any:
        """Of everything but bind, as JSON."""
        if verb == "preempt":
            return json.loads(wire.encode(self.verbs.preempt(wire.decode_preemption_args(body))))
        args = wire.decode_args(body)
        return json.loads(wire.encode(getattr(self.verbs, verb)(args)))

    def see(self, pod: Json, node: str = "") -> PodInfo:
        """As the watch of pods shows it."""
        found = msgspec.convert(pod, Pod)
        if node:
            found = msgspec.structs.replace(found, spec=msgspec.structs.replace(found.spec, node_name=node))
        self.engine.upsert_pod(found)
        return PodInfo(found)
