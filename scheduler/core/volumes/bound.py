"""Whether a plan has come true, from the objects as they were last observed.

The writes of a plan only start it: the volume controller binds claims to volumes, provisioners make
volumes, and either may fail. To be asked once the watch shows the plan's own writes.
Source: checkBindings (pkg/scheduler/framework/plugins/volumebinding/binder.go).
"""

from __future__ import annotations

from scheduler.api import NodeSelector
from scheduler.api_objects import CSINode, PersistentVolume, PersistentVolumeClaim
from scheduler.core.node_selector import selects
from scheduler.core.nodes import NodeTable
from scheduler.core.volumes.claims import is_fully_bound
from scheduler.core.volumes.plan import SELECTED_NODE, ObjectVersion, PlanFailed, VolumePlan
from scheduler.core.volumes.sources import (
    UntranslatableVolume,
    affinity_of,
    provisioner_of,
    translated_affinity,
)

MIGRATED_PLUGINS = "storage.alpha.kubernetes.io/migrated-plugins"
"""Annotation of a CSINode: the old provisioners whose volumes CSI drivers attach there, with commas."""


def is_bound(plan: VolumePlan, nodes: NodeTable) -> bool:
    """Whether every claim of the plan is fully bound, to a volume that its node reaches.

    Raises PlanFailed when that can't be expected any more.
    """
    if plan.node not in nodes.row_of:
        raise PlanFailed(f'failed to get node "{plan.node}": node "{plan.node}" not found')
    for binding in plan.bindings:
        volume = nodes.cluster.observed(PersistentVolume, binding.volume.name)
        if volume is None or volume.metadata.uid != binding.volume.uid:
            name = binding.volume.name
            raise PlanFailed(f'failed to check binding: persistentvolumes "{name}" not found')
        claim = _observed_claim(binding.claim, nodes, "failed to check binding")
        _check_affinity(volume, plan.node, nodes)
        reference = volume.spec.claim_ref
        if reference is None or not reference.uid:
            raise PlanFailed(f'ClaimRef got reset for pv "{volume.metadata.name}"')
        if not is_fully_bound(claim):
            return False
    for provision in plan.provisions:
        claim = _observed_claim(provision.claim, nodes, "failed to check provisioning pvc")
        if (claim.metadata.annotations or {}).get(SELECTED_NODE) != plan.node:
            # A provisioner that has failed takes the annotation away.
            raise PlanFailed(f'provisioning failed for PVC "{claim.metadata.name}"')
        if claim.spec.volume_name:
            made = nodes.cluster.observed(PersistentVolume, claim.spec.volume_name)
            if made is None:
                return False  # not seen yet; a volume that was deleted makes the claim unbound in time
            _check_affinity(made, plan.node, nodes)
        if not is_fully_bound(claim):
            return False
    return True


def _observed_claim(version: ObjectVersion, nodes: NodeTable, what: str) -> PersistentVolumeClaim:
    claim = nodes.cluster.observed(PersistentVolumeClaim, version.name, version.namespace)
    if claim is None or claim.metadata.uid != version.uid:
        raise PlanFailed(f'{what}: persistentvolumeclaims "{version.key}" not found')
    return claim


def _check_affinity(volume: PersistentVolume, node: str, nodes: NodeTable) -> None:
    """Raises PlanFailed when the node does not reach the volume."""
    row = nodes.row_of[node]
    try:
        affinity = affinity_on(volume, nodes.cluster.observed(CSINode, node))
    except UntranslatableVolume as error:
        raise PlanFailed(f"failed to translate pv to csi: could not translate pv: {error}") from error
    if affinity is None or selects(affinity, nodes.view(slice(row, row + 1)), nameless=True).all():
        return
    name = volume.metadata.name
    raise PlanFailed(f'pv "{name}" node affinity doesn\'t match node "{node}": no matching NodeSelectorTerms')


def affinity_on(volume: PersistentVolume, csi_node: CSINode | None) -> NodeSelector | None:
    """The volume's affinity as a node with this CSINode takes it. Raises UntranslatableVolume."""
    migrated = provisioner_of(volume) in migrated_plugins(csi_node)
    return translated_affinity(volume) if migrated else affinity_of(volume)


def migrated_plugins(csi_node: CSINode | None) -> frozenset[str]:
    """Old provisioners whose volumes are attached by CSI drivers on the node."""
    annotations = csi_node.metadata.annotations if csi_node is not None else None
    text = (annotations or {}).get(MIGRATED_PLUGINS, "")
    return frozenset(text.split(",")) if text else frozenset()
