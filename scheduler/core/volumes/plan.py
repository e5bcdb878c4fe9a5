"""What has to be written, and waited for, before a pod with unbound claims can be bound to its node.

A decision about such a pod is two things: the node, and which volumes its claims shall have there. The
second is this plan. It names objects by uid and resourceVersion, so that whoever carries it out writes to
the very objects the decision looked at or gets a conflict; nobody's change in between is overwritten.
Source: PodVolumes, bindAPIUpdate (pkg/scheduler/framework/plugins/volumebinding/binder.go).
"""

from __future__ import annotations

from dataclasses import dataclass

SELECTED_NODE = "volume.kubernetes.io/selected-node"
"""Annotation of a claim: the node to provision its volume for. A provisioner that fails removes it."""
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
"""Annotation of a volume whose claimRef was set by a program; its value is `yes`."""
BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
"""Annotation of a claim: the volume controller has done its part. The value does not matter."""


class PlanFailed(Exception):
    """A plan that can't come true any more: its pod has to be decided again. The message says why."""


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One version of one object."""

    name: str
    uid: str
    resource_version: str
    namespace: str = ""

    @property
    def key(self) -> str:
        """`namespace/name`, or the name of an object without a namespace."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class StaticBinding:
    """A volume that exists is to get this claim as `spec.claimRef`: apiVersion `v1`, kind
    `PersistentVolumeClaim`, namespace, name, uid and resourceVersion of `claim`."""

    claim: ObjectVersion
    volume: ObjectVersion
    set_claim_ref: bool = True
    """False when somebody has reserved the volume for this very claim, uid and all: nothing to write."""
    set_by_controller: bool = True
    """Whether to set the annotation `BOUND_BY_CONTROLLER: "yes"`; not when a user reserved the volume."""

    @property
    def is_written(self) -> bool:
        """Whether the volume is already as it has to be."""
        return not (self.set_claim_ref or self.set_by_controller)


@dataclass(frozen=True, slots=True)
class Provisioning:
    """A volume is to be made for this claim: it gets the annotation `SELECTED_NODE` with the node's name."""

    claim: ObjectVersion


@dataclass(frozen=True, slots=True)
class VolumePlan:
    """The writes for one pod, volumes first, each once; then wait until `is_bound`."""

    node: str
    bindings: tuple[StaticBinding, ...] = ()
    provisions: tuple[Provisioning, ...] = ()
    timeout_s: float = 600.0
    """How long to wait after the writes."""
