"""A second picture of the cluster, to plan on while the first one moves on.

A gang of thousands takes a second or more to plan. On the live state nobody else could be decided
meanwhile: what was found so far would rest on sand. So it is planned on a *snapshot*, a slice at a time
between others' decisions, and checked against the live state when it is done.

**Why no thread or process.** Planning is interpreted Python around small numpy calls, which hold the
interpreter's lock for nearly all of their time: a thread would take turns with the loop just as slices do,
but at moments of the interpreter's choice (every 5 ms, in the midst of a decision) instead of ours. A
process would plan on a core of its own, but needs the cluster sent over: pods and their caches take some
hundred bytes and tens of microseconds each to encode and read, more than most plans cost. Slices need no
locks and no copies in flight, run in virtual time in tests, and what they cost others is one slice.

**What a snapshot costs.** The shadow is kept, with the caches of its cycles, and catches up when the next
snapshot is taken: nodes whose row has a newer generation are compared, and only pods that came or went
are accounted for. After a second of a busy cluster that is a few milliseconds. The first time everything
is copied, which takes a second per 100,000 pods, in slices as well. Plugins are asked about the shadow like
about the live state, through the same `NodeView`.

What preemption goes by (victims that are leaving) is not copied: nobody is evicted by a snapshot.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from itertools import islice

import msgspec

from scheduler.api import ContainerImage, Node
from scheduler.api_objects import ClusterObject
from scheduler.core.cycle import Cycle
from scheduler.core.state import ClusterState

_AT_ONCE = 64
"""So few changed nodes are copied without a pause."""
_PASSES = 16
"""After so many times of running after a cluster that changes faster, the rest is copied without a pause."""


class Shadow:
    """`state` and `cycles` are as the live ones were when `catch_up` last came to its end; whoever assumes
    pods in the state must have forgotten them before the next."""

    def __init__(self, live: ClusterState, cycles: Mapping[str, Cycle]) -> None:
        self._live = live
        self.state = ClusterState(live.nodes.mix)
        self.cycles = {
            name: Cycle(cycle.profile, self.state.nodes, self.state.nominations)
            for name, cycle in cycles.items()
        }
        self.generation = -1
        """The live table's, as of the snapshot."""
        self._stale: dict[str, int] = {}
        """Nodes that have changed → the generation as of which they were copied last."""
        self._namespaces_version = self._nominations_version = -1
        self._versions: dict[type[ClusterObject], int] = {}

    def catch_up(self) -> Generator[None, None, None]:
        """Takes a snapshot, some nodes at a time; nothing has changed in between at the end. What was done
        is not done again when it is closed early."""
        for _ in range(_PASSES):
            self._note_changes()
            if len(self._stale) <= _AT_ONCE:
                break
            while self._stale:
                self._copy(_AT_ONCE)
                yield
        self._note_changes()
        self._copy(len(self._stale))
        self._copy_the_rest()

    # ---- internals

    def _note_changes(self) -> None:
        live = self._live.nodes
        for row in live.changed_since(self.generation).tolist():
            self._stale.setdefault(live.names[row], self.generation)
        self.generation = live.generation

    def _copy(self, count: int) -> None:
        """So many of the nodes that have changed, and their pods."""
        live, own = self._live, self.state
        for name in list(islice(self._stale, count)):
            since = self._stale.pop(name)
            row = live.nodes.row_of.get(name)
            if row is None:
                continue  # gone since
            if name not in own.nodes.row_of or int(live.nodes.object_generation[row]) > since:
                own.upsert_node(_with_images(live.nodes.objects[row], live.nodes.images.on(row)))
            there = {placed.info.uid: placed.info for placed in live.pods_on(name)}
            for placed in own.pods_on(name):
                if placed.info.uid not in there:
                    own.remove_pod(placed.info.uid)
            for uid, info in there.items():
                here = own.pods.get(uid)
                if here is None or here.info is not info or here.node != name:
                    own.put(info, name)

    def _copy_the_rest(self) -> None:
        """What is not a node's, and nodes that are gone."""
        live, own = self._live, self.state
        if len(own.nodes) != len(live.nodes) or own.nodes.row_of.keys() != live.nodes.row_of.keys():
            for name in [name for name in own.nodes.names if name not in live.nodes.row_of]:
                for placed in own.pods_on(name):
                    own.remove_pod(placed.info.uid)
                own.remove_node(name)
        own.nodes.mix = live.nodes.mix
        if self._namespaces_version != live.nodes.pods.namespaces_version:
            self._namespaces_version = live.nodes.pods.namespaces_version
            there, here = live.nodes.pods.namespaces, own.nodes.pods.namespaces
            for name in {*there, *here}:
                own.nodes.pods.set_namespace(name, there.get(name))
        for kind in live.nodes.cluster.kinds:
            version = live.nodes.cluster.version(kind)
            if self._versions.get(kind) != version:
                self._versions[kind] = version
                own.nodes.cluster.mirror(live.nodes.cluster, kind)
        if self._nominations_version != live.nominations.version:
            self._nominations_version = live.nominations.version
            own.nominations.mirror(live.nominations)


def _with_images(node: Node, images: Mapping[str, int]) -> Node:
    """The table keeps a node's images apart."""
    if not images:
        return node
    listed = [ContainerImage(names=[name], size_bytes=size) for name, size in images.items()]
    return msgspec.structs.replace(node, status=msgspec.structs.replace(node.status, images=listed))
