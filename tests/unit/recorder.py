"""A writer that notes what it is told to write and answers when a test says so.

It has the part of `scheduler.kube.writer.Writer` that the scheduling loop uses. The real one is
exercised against a real API server in tests/integration.
"""

from __future__ import annotations

from typing import cast

from scheduler.kube.payloads import BindRequest, DeleteRequest, PodEvent, StatusPatch
from scheduler.kube.status_patches import Then
from scheduler.kube.volume_writes import VolumeRequest
from scheduler.kube.writer import Writer


class Recorder:
    def __init__(self) -> None:
        self.binds: list[BindRequest] = []
        self.cancelled: list[str] = []
        self.volumes: list[VolumeRequest] = []
        self.cancelled_volumes: list[str] = []
        self.deletions: list[DeleteRequest] = []
        self.patches: list[StatusPatch] = []
        self.unsent: set[str] = set()
        """Pods of whose bind or deletion nothing is sent yet."""
        self.held: list[Then] | None = None
        """What is to happen after patches, if a test lets them wait."""
        self.events: list[PodEvent] = []

    def bind(self, request: BindRequest) -> None:
        self.binds.append(request)

    def cancel(self, uid: str) -> bool:
        self.cancelled.append(uid)
        return True

    def write_volumes(self, request: VolumeRequest) -> None:
        self.volumes.append(request)

    def cancel_volumes(self, uid: str) -> bool:
        self.cancelled_volumes.append(uid)
        return True

    def delete(self, request: DeleteRequest) -> None:
        self.deletions.append(request)

    def cancel_unsent(self, uid: str) -> bool:
        if uid not in self.unsent:
            return False
        self.unsent.discard(uid)
        return self.cancel(uid)

    def patch_status(self, patch: StatusPatch, then: Then | None = None) -> None:
        self.patches.append(patch)
        if then is not None and self.held is None:
            then()
        elif then is not None and self.held is not None:
            self.held.append(then)

    def post_event(self, event: PodEvent) -> None:
        self.events.append(event)

    @property
    def as_writer(self) -> Writer:
        return cast(Writer, self)

    @property
    def notes(self) -> list[str]:
        """Texts of the events so far."""
        return [event.note for event in self.events]
