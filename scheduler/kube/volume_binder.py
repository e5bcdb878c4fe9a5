"""Volumes before pods: carries out the plans of placed pods, and says when their binds may be sent.

A plan is first written (`volume_writes`), then others act: the volume controller binds claims to volumes,
provisioners make volumes. That takes from milliseconds to minutes, and it is waited for without asking
the API server for anything: each watched object that a plan is about makes us look at that plan again.
No worker and no place among the binds is taken by a pod that waits; its room on the node is.

Nothing of this is kept anywhere but in the objects. After a restart, a volume that was reserved and a
claim that names a node are found by the pod's next decision, which then continues.

Source: PreBind and BindPodVolumes (pkg/scheduler/framework/plugins/volumebinding/binder.go); there the
objects are looked at once a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from scheduler.api import Node
from scheduler.api_objects import ClusterObject, CSINode, PersistentVolume, PersistentVolumeClaim
from scheduler.core.nodes import NodeTable
from scheduler.core.volumes.bound import is_bound
from scheduler.core.volumes.plan import PlanFailed, VolumePlan
from scheduler.kube.volume_writes import VolumeOutcome, VolumeRequest, Written
from scheduler.kube.writer import Writer

Key = tuple[type[Node] | type[ClusterObject], str]
"""Kind and `ObjectVersion.key` of an object that a plan is about."""


@dataclass(slots=True)
class _Open:
    """A plan that is being carried out."""

    plan: VolumePlan
    about: frozenset[Key]
    versions: Mapping[tuple[type[ClusterObject], str], str] = field(default_factory=dict)
    """What was written; the watch has to get there first."""
    timer: asyncio.TimerHandle | None = None
    """Runs while we wait for others; None while we are writing."""


class VolumeBinder:
    """Each plan ends in one call of `on_bound(uid)` or `on_failed(uid, message)`, unless it is cancelled.

    `nodes` is where the watched nodes and objects are. Give `on_written` to the writer.
    """

    def __init__(
        self,
        nodes: NodeTable,
        writer: Writer,
        *,
        on_bound: Callable[[str], None],
        on_failed: Callable[[str, str], None],
    ) -> None:
        self._nodes, self._writer = nodes, writer
        self._on_bound, self._on_failed = on_bound, on_failed
        self._open: dict[str, _Open] = {}
        self._about: dict[Key, set[str]] = {}

    def __len__(self) -> int:
        """Pods whose volumes are not ready."""
        return len(self._open)

    def bind(self, request: VolumeRequest) -> None:
        """Write what is to be written, then wait until all claims are bound, for as long as the plan says.

        Raises ValueError for a pod whose plan is being carried out.
        """
        uid, plan = request.uid, request.plan
        if uid in self._open:
            raise ValueError(f"the volumes of pod {request.namespace}/{request.name} are being bound already")
        opened = self._open[uid] = _Open(plan, _objects_of(plan))
        for key in opened.about:
            self._about.setdefault(key, set()).add(uid)
        if plan.provisions or not all(binding.is_written for binding in plan.bindings):
            self._writer.write_volumes(request)
        else:
            self._wait(uid, opened)

    def cancel(self, uid: str) -> bool:
        """The pod is gone, or is to go elsewhere; False if it has no plan here. What is written stays."""
        if not self._close(uid):
            return False
        self._writer.cancel_volumes(uid)
        return True

    def cancel_all(self) -> None:
        """This process stops: the next one goes on from what is written."""
        for uid in list(self._open):
            self.cancel(uid)

    def on_written(self, uid: str, outcome: VolumeOutcome) -> None:
        """What became of a plan's writes."""
        if isinstance(outcome, Written):
            opened = self._open[uid]
            opened.versions = outcome.versions
            self._wait(uid, opened)
        else:
            self._fail(uid, outcome.message)

    def object_changed(self, item: ClusterObject) -> None:
        """Added, modified or deleted; after the engine knows."""
        metadata = item.metadata
        keys: list[Key] = [(type(item), _key(metadata.namespace, metadata.name))]
        if isinstance(item, PersistentVolume) and (claim := item.spec.claim_ref) is not None:
            # A volume that was made for a claim: its name is not in the plan.
            keys.append((PersistentVolumeClaim, _key(claim.namespace, claim.name)))
        elif isinstance(item, CSINode):
            keys.append((Node, metadata.name))
        self._look_at(keys)

    def node_changed(self, name: str) -> None:
        """Added, modified or deleted; after the engine knows."""
        self._look_at([(Node, name)])

    def everything_changed(self) -> None:
        """A complete list has come."""
        self._look_at(list(self._about))

    def _look_at(self, keys: list[Key]) -> None:
        for uid in sorted({uid for key in keys for uid in self._about.get(key, ())}):
            if (opened := self._open.get(uid)) is not None:
                self._look(uid, opened)

    def _wait(self, uid: str, opened: _Open) -> None:
        opened.timer = asyncio.get_running_loop().call_later(opened.plan.timeout_s, self._time_out, uid)
        self._look(uid, opened)

    def _look(self, uid: str, opened: _Open) -> None:
        if opened.timer is None or any(self._is_behind(*at) for at in opened.versions.items()):
            return
        try:
            bound = is_bound(opened.plan, self._nodes)
        except PlanFailed as failure:
            self._fail(uid, f"binding volumes: {failure}")
            return
        if bound:
            self._close(uid)
            self._on_bound(uid)

    def _is_behind(self, key: tuple[type[ClusterObject], str], resource_version: str) -> bool:
        """Whether the watch still shows an object as it was before our write."""
        kind, name = key
        namespace, _, name = name.rpartition("/")
        shown = self._nodes.cluster.observed(kind, name, namespace)
        return shown is not None and _is_older(shown.metadata.resource_version, resource_version)

    def _time_out(self, uid: str) -> None:
        self._fail(uid, "binding volumes: context deadline exceeded")

    def _fail(self, uid: str, message: str) -> None:
        self._close(uid)
        self._on_failed(uid, f'running PreBind plugin "VolumeBinding": {message}')

    def _close(self, uid: str) -> bool:
        opened = self._open.pop(uid, None)
        if opened is None:
            return False
        if opened.timer is not None:
            opened.timer.cancel()
        for key in opened.about:
            self._about[key].discard(uid)
            if not self._about[key]:
                del self._about[key]
        return True


def _objects_of(plan: VolumePlan) -> frozenset[Key]:
    claims = [binding.claim for binding in plan.bindings] + [each.claim for each in plan.provisions]
    return frozenset(
        {
            (Node, plan.node),
            *((PersistentVolumeClaim, claim.key) for claim in claims),
            *((PersistentVolume, binding.volume.key) for binding in plan.bindings),
        }
    )


def _key(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


def _is_older(resource_version: str, than: str) -> bool:
    """Versions of one object are numbers without leading zeros (apimachinery's CompareResourceVersion)."""
    return (len(resource_version), resource_version) < (len(than), than)
