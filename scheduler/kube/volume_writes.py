"""What a plan for a pod's volumes writes: a claim into each volume, a node into each claim.

One request at a time, until all is written or it is certain that it can't be. Each write is guarded by
the resourceVersion that the decision saw, so it can change nothing that anybody else has changed since.
On any doubt (a lost answer, a 5xx, a conflict) the object is read: it may already be as we want it, by
an attempt whose answer was lost, by the process before us, or by somebody who wanted the same. If it is
still free and only its version has moved (a controller has written its status), the write is sent again
for the new version.

Unlike a bind this can be given up at any point, also while an attempt may still be executed: nothing here
is undone, and a volume that is reserved or a claim that names a node is what the next decision starts
from. So after a few failures the pod is better judged anew. Two plans that want one volume can't both have
it, since only one of them finds the version that it knows.

Source: bindAPIUpdate (pkg/scheduler/framework/plugins/volumebinding/binder.go).
"""

from __future__ import annotations

import enum
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from scheduler.api import ObjectMeta
from scheduler.api_objects import ClusterObject, PersistentVolume, PersistentVolumeClaim
from scheduler.core.volumes.plan import (
    BOUND_BY_CONTROLLER,
    SELECTED_NODE,
    Provisioning,
    StaticBinding,
    VolumePlan,
)
from scheduler.kube.backoff import Backoff
from scheduler.kube.client import MERGE_PATCH, KubeClient
from scheduler.kube.errors import ApiError, ErrorKind, OutcomeUnknown, Unreachable
from scheduler.kube.steps import UNREACHABLE_PAUSE_S, Again, paused

_TIMEOUT_S = 15.0
_MAX_FAILURES = 8  # of one write: 10 to 20 seconds with the delays between them

_encode = msgspec.json.Encoder().encode
_decode_volume = msgspec.json.Decoder(PersistentVolume).decode
_decode_claim = msgspec.json.Decoder(PersistentVolumeClaim).decode


@dataclass(frozen=True, slots=True)
class VolumeRequest:
    """The writes of `plan`, for this pod."""

    namespace: str
    name: str
    uid: str
    plan: VolumePlan

    @property
    def path(self) -> str:
        """Of the pod."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"


class Written(msgspec.Struct, frozen=True):
    """All of it is written. Until the watch shows these versions it tells of the past."""

    versions: Mapping[tuple[type[ClusterObject], str], str]
    """(kind, `ObjectVersion.key`) → resourceVersion after the write."""


class NotWritten(msgspec.Struct, frozen=True):
    """Some of it can't be written as things are; what was written before stays."""

    message: str


VolumeOutcome = Written | NotWritten


class _State(enum.Enum):
    """Of an object that is to be written."""

    DONE = enum.auto()
    OPEN = enum.auto()
    TAKEN = enum.auto()
    """It is somebody else's by now, or on its way out."""


class _ClaimRefWrite:
    """Reserves a volume for a claim (GetBindVolumeToClaim in component-helpers/storage/volume)."""

    kind: type[ClusterObject] = PersistentVolume
    resource = "persistentvolumes"

    def __init__(self, binding: StaticBinding) -> None:
        self._binding, self.target = binding, binding.volume
        self.path = f"/api/v1/persistentvolumes/{self.target.name}"

    def body(self, resource_version: str) -> bytes:
        """A merge patch."""
        binding, claim = self._binding, self._binding.claim
        metadata: dict[str, object] = {"uid": self.target.uid, "resourceVersion": resource_version}
        patch: dict[str, object] = {"metadata": metadata}
        if binding.set_by_controller:
            metadata["annotations"] = {BOUND_BY_CONTROLLER: "yes"}
        if binding.set_claim_ref:
            reference = {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": claim.namespace,
                "name": claim.name,
                "uid": claim.uid,
                "resourceVersion": claim.resource_version,
            }
            patch["spec"] = {"claimRef": reference}
        return _encode(patch)

    def read(self, body: bytes) -> tuple[ObjectMeta, _State]:
        """Raises msgspec.DecodeError."""
        volume = _decode_volume(body)
        return volume.metadata, self._state(volume)

    def _state(self, volume: PersistentVolume) -> _State:
        claim, owner = self._binding.claim, volume.spec.claim_ref
        if _is_going(volume.metadata):
            return _State.TAKEN
        if owner is None:
            return _State.OPEN if self._binding.set_claim_ref else _State.TAKEN
        if (owner.namespace, owner.name) != (claim.namespace, claim.name) or owner.uid not in ("", claim.uid):
            return _State.TAKEN
        annotated = BOUND_BY_CONTROLLER in (volume.metadata.annotations or {})
        complete = bool(owner.uid) and (annotated or not self._binding.set_by_controller)
        return _State.DONE if complete else _State.OPEN


class _SelectedNodeWrite:
    """Has a volume made for a claim, where `node` can use it."""

    kind: type[ClusterObject] = PersistentVolumeClaim
    resource = "persistentvolumeclaims"

    def __init__(self, provisioning: Provisioning, node: str) -> None:
        self._node, self.target = node, provisioning.claim
        self.path = f"/api/v1/namespaces/{self.target.namespace}/persistentvolumeclaims/{self.target.name}"

    def body(self, resource_version: str) -> bytes:
        """A merge patch."""
        metadata = {
            "uid": self.target.uid,
            "resourceVersion": resource_version,
            "annotations": {SELECTED_NODE: self._node},
        }
        return _encode({"metadata": metadata})

    def read(self, body: bytes) -> tuple[ObjectMeta, _State]:
        """Raises msgspec.DecodeError."""
        claim = _decode_claim(body)
        return claim.metadata, self._state(claim)

    def _state(self, claim: PersistentVolumeClaim) -> _State:
        selected = (claim.metadata.annotations or {}).get(SELECTED_NODE)
        if _is_going(claim.metadata):
            return _State.TAKEN
        if selected == self._node:
            return _State.DONE
        return _State.OPEN if selected is None and not claim.spec.volume_name else _State.TAKEN


def _is_going(metadata: ObjectMeta) -> bool:
    return metadata.deletion_timestamp is not None


_Write = _ClaimRefWrite | _SelectedNodeWrite


class VolumeWrites:
    """The state of one pod's writes (`steps.Steps`)."""

    __slots__ = (
        "_backoff",
        "_doubted",
        "_failures",
        "_refusal",
        "_todo",
        "_version",
        "_versions",
        "request",
        "undecided",
    )

    def __init__(self, request: VolumeRequest, *, rng: random.Random) -> None:
        """The plan must have something to write."""
        self.request = request
        self.undecided = False  # for none of it has to be brought to an end
        plan = request.plan
        bindings = (_ClaimRefWrite(binding) for binding in plan.bindings if not binding.is_written)
        provisions = (_SelectedNodeWrite(provisioning, plan.node) for provisioning in plan.provisions)
        self._todo: deque[_Write] = deque((*bindings, *provisions))
        self._versions: dict[tuple[type[ClusterObject], str], str] = {}
        self._backoff = Backoff(0.1, 5.0, rng=rng)
        self._begin()

    async def step(self, client: KubeClient) -> VolumeOutcome | Again:
        """One request."""
        write = self._todo[0]
        try:
            if self._doubted:
                answer = await client.request("GET", write.path, timeout_s=_TIMEOUT_S)
                return self._found(*write.read(answer.body))
            answer = await client.request(
                "PATCH",
                write.path,
                body=write.body(self._version),
                content_type=MERGE_PATCH,
                timeout_s=_TIMEOUT_S,
            )
            metadata, _ = write.read(answer.body)
            return self._done(metadata)
        except Unreachable:
            return Again(pause_s=UNREACHABLE_PAUSE_S)
        except ApiError as error:
            return self._refused(error)
        except OutcomeUnknown as error:
            return self._failed(str(error))
        except msgspec.DecodeError as error:
            return self._failed(f"the API server's answer about {write.path} can't be read: {error}")

    def _begin(self) -> None:
        """The next write."""
        target = self._todo[0].target
        self._version = target.resource_version
        self._doubted = False
        self._failures = 0
        # NewConflict in apimachinery/pkg/api/errors; what is found to be taken was changed by somebody.
        self._refusal = (
            f'Operation cannot be fulfilled on {self._todo[0].resource} "{target.name}": the object has been '
            "modified; please apply your changes to the latest version and try again"
        )
        self._backoff.reset()

    def _found(self, metadata: ObjectMeta, state: _State) -> VolumeOutcome | Again:
        if metadata.uid != self._todo[0].target.uid or state is _State.TAKEN:
            return NotWritten(self._refusal)
        if state is _State.DONE:
            return self._done(metadata)
        self._version = metadata.resource_version
        self._doubted = False
        return Again()

    def _done(self, metadata: ObjectMeta) -> VolumeOutcome | Again:
        write = self._todo.popleft()
        self._versions[write.kind, write.target.key] = metadata.resource_version
        if not self._todo:
            return Written(self._versions)
        self._begin()
        return Again(retry=False)

    def _refused(self, error: ApiError) -> VolumeOutcome | Again:
        message = error.message or str(error)
        match error.kind:
            case ErrorKind.TOO_MANY_REQUESTS:
                return paused(error)
            case ErrorKind.SERVER_ERROR | ErrorKind.CONFLICT:
                return self._failed(message)
            case _:
                return NotWritten(message)

    def _failed(self, message: str) -> VolumeOutcome | Again:
        """It is not certain that it is not written, or it could be written the next time."""
        self._failures += 1
        if self._failures >= _MAX_FAILURES:
            return NotWritten(message)
        self._doubted = True
        return Again(self._backoff.next())
