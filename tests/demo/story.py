"""The story: A and B as two pods, as one, and as a gang. Each act is told, shown and checked."""

import os
import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from tests.demo import gangs, view
from tests.demo.scene import HERE, DemoError, EventState, Scene, Snapshot

TWO_PODS, ONE_POD, TOO_BIG = (HERE / "pods" / f"{name}.yaml" for name in ("two-pods", "one-pod", "too-big"))


def tell(scene: Scene, console: Console) -> Snapshot:
    """All acts; returns how things stand at the end. Raises DemoError when something is not as told."""
    _introduce(scene, console)
    _two_pods(scene, console)
    _one_pod(scene, console)
    scene.delete("ab")
    gangs.tell(scene, console)
    # Events are written last, and metrics follow the watch.
    pods = 3 + 2 * len(gangs.STRATEGIES)
    end = scene.wait_for(
        lambda now: _count(now, "Scheduled") >= pods and now.metrics.get(view.REQUESTED) == 1.5 * view.GIB,
        f"{pods} Scheduled events and 1.5 GiB of requested memory were not seen",
    )
    _check_end(end)
    return end


def hints(scene: Scene) -> Text:
    """How to poke at the cluster from another terminal."""
    lines = [(f"export KUBECONFIG={scene.kubeconfig}", "")]
    # `uv run` puts this folder on PATH, but not on that of the user's other terminal.
    environment = Path(sys.executable).parent
    elsewhere = [folder for folder in os.get_exec_path() if Path(folder) != environment]
    if shutil.which("kubectl", path=os.pathsep.join(elsewhere)) is None:
        lines.append((f"alias kubectl={environment / 'kubectl'}", ""))
    lines += [
        ("kubectl cordon node-b", "nothing new goes there"),
        (f"kubectl apply -f {os.path.relpath(TWO_PODS)}", "a finds node-a; b waits, and its event says why"),
        ("kubectl uncordon node-b", "wakes b"),
        ("kubectl delete pod optimistic-a optimistic-b", "their room is free at once"),
        (f"kubectl apply -f {os.path.relpath(TOO_BIG)}", "fits nowhere"),
        (f"kubectl apply -f {os.path.relpath(HERE / 'pods' / 'gang-hoarding.yaml')}", "a gang"),
        (f"{os.path.relpath(environment / 'wholepod')} gangs --url {scene.url}", "what each gang waits for"),
        ("kubectl get events --sort-by=.metadata.creationTimestamp", ""),
    ]
    text = Text()
    for command, remark in lines:
        text.append(command, "cyan")
        text.append(f"  # {remark}\n" if remark else "\n", "dim")
    return text


def _introduce(scene: Scene, console: Console) -> None:
    console.print(Text("The A + B problem", "bold"))
    console.print(
        "A needs 1 GiB of memory and B needs 0.5 GiB, and they are of use only on the same node. "
        "node-a has 1.25 GiB, node-b has 2 GiB.\n"
        f"This is a real API server (Kubernetes {scene.version}) and a real `wholepod run` with "
        "MemoryFit's objective `tight`: fill nodes up, keep others free.",
        highlight=False,
    )


def _two_pods(scene: Scene, console: Console) -> None:
    console.print(view.heading("1. As two pods, each placed by itself"))
    for name in ("a", "b"):
        scene.apply(TWO_PODS, name)
        snapshot = _placed(scene, name)
    console.print(
        "A leaves least room unused on node-a. B no longer fits beside it, and goes to node-b: "
        "each is placed well, and together they are of no use.",
        highlight=False,
    )
    _show(snapshot, console)
    _expect_node(snapshot, "a", "node-a")
    _expect_node(snapshot, "b", "node-b")
    for name in ("a", "b"):
        scene.delete(name)


def _one_pod(scene: Scene, console: Console) -> None:
    console.print(view.heading("2. As two containers of one pod"))
    scene.apply(ONE_POD, "ab")
    snapshot = _placed(scene, "ab")
    console.print("The whole pod needs 1.5 GiB, which only node-b has: together.", highlight=False)
    _show(snapshot, console)
    _expect_node(snapshot, "ab", "node-b")


def _check_end(snapshot: Snapshot) -> None:
    """That events and metrics tell the same story. Raises DemoError."""
    scheduled = [event for event in snapshot.events if event.reason == "Scheduled"]
    placed = {"a": "node-a", "b": "node-b", "ab": "node-b"}
    placed |= {f"{strategy}-{pod}": "node-b" for strategy in gangs.STRATEGIES for pod in ("a", "b")}
    expected = [
        EventState("Scheduled", f"Successfully assigned default/{pod} to {node}")
        for pod, node in placed.items()
    ]
    # Members of a gang are bound at the same time.
    _expect("the Scheduled events", sorted(scheduled, key=_note), sorted(expected, key=_note))
    for series, value in (
        (view.ALLOCATABLE, 3.25 * view.GIB),
        (view.REQUESTED, 1.5 * view.GIB),
        (view.SCHEDULED, float(len(placed))),
    ):
        _expect(f"the metric {series}", snapshot.metrics.get(series), value)


def _placed(scene: Scene, name: str) -> Snapshot:
    return scene.wait_for(lambda now: bool(now.node_of(name)), f"pod {name} was not placed")


def _show(snapshot: Snapshot, console: Console) -> None:
    console.print(Padding(view.nodes(snapshot, console), (0, 0, 0, 2)))


def _note(event: EventState) -> str:
    return event.note


def _count(snapshot: Snapshot, reason: str) -> int:
    return sum(1 for event in snapshot.events if event.reason == reason)


def _expect_node(snapshot: Snapshot, pod: str, node: str) -> None:
    _expect(f"the node of pod {pod}", snapshot.node_of(pod), node)


def _expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise DemoError(f"this is not what was to be shown: {what} should be {expected}, and is {found}")
