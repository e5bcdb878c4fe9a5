"""A plan taken for granted: its volumes and claims as they will be, seen so by all decisions after it.

Source: AssumePodVolumes (plugins/volumebinding/binder.go), GetBindVolumeToClaim (component-helpers).
"""

from __future__ import annotations

from msgspec.structs import replace

from scheduler.api import ObjectMeta
from scheduler.api_objects import PersistentVolume, PersistentVolumeClaim, TypedReference
from scheduler.core.objects import ClusterObjects
from scheduler.core.volumes.plan import BOUND_BY_CONTROLLER, SELECTED_NODE, VolumePlan


def assume_plan(plan: VolumePlan, cluster: ClusterObjects, *, owner: str) -> None:
    """Until the watch shows them otherwise, or `cluster.restore(owner)`."""
    for binding in plan.bindings:
        volume = cluster.get(PersistentVolume, binding.volume.name)
        if volume is None or binding.is_written:
            continue
        metadata, spec, claim = volume.metadata, volume.spec, binding.claim
        if binding.set_by_controller:
            metadata = _annotated(metadata, BOUND_BY_CONTROLLER, "yes")
        if binding.set_claim_ref:
            reference = TypedReference("PersistentVolumeClaim", claim.name, claim.namespace, claim.uid)
            spec = replace(spec, claim_ref=reference)
        cluster.assume(replace(volume, metadata=metadata, spec=spec), owner=owner)
    for provision in plan.provisions:
        found = cluster.get(PersistentVolumeClaim, provision.claim.name, provision.claim.namespace)
        if found is not None:
            metadata = _annotated(found.metadata, SELECTED_NODE, plan.node)
            cluster.assume(replace(found, metadata=metadata), owner=owner)


def _annotated(metadata: ObjectMeta, key: str, value: str) -> ObjectMeta:
    return replace(metadata, annotations={**(metadata.annotations or {}), key: value})
