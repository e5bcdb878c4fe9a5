"""Jobs, JobSets and StatefulSets: how many pods they run at once, of which group, and whether that can work.

Only what makes the pods of a workload one gang is read. A group's members must all exist at once, or it waits
for ever; so a StatefulSet has to create its pods in parallel, and a JobSet must not wait for one of its
jobs before it creates the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from scheduler.api import ApiStruct, ObjectMeta, Pod, PodSchedulingGroup, PodSpec
from scheduler.controller.shapes import Key, PortedContainer, PortedSpec
from scheduler.core.gangs.gang import MIN_COUNT
from scheduler.core.gangs.ref import GANG, POD_GROUP_LABEL, GangRef, ref_of

CREATE = "wholepod.io/create-pod-group"
PREFIX = "wholepod.io/"
_OF_THE_WORKLOAD = (CREATE, MIN_COUNT, GANG)

DEFAULT_SCHEDULER = "default-scheduler"


class TemplateSpec(ApiStruct):
    scheduler_name: str | None = None
    scheduling_group: PodSchedulingGroup | None = None
    containers: list[PortedContainer] | None = None
    init_containers: list[PortedContainer] | None = None


class PodTemplate(ApiStruct):
    """A pod template; a pod itself is one, too."""

    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    spec: TemplateSpec = msgspec.field(default_factory=TemplateSpec)

    @property
    def annotations(self) -> Mapping[str, str]:
        return self.metadata.annotations or {}

    @property
    def group_name(self) -> str:
        """Of the label that puts its pods into a PodGroup; "" if there is none."""
        return (self.metadata.labels or {}).get(POD_GROUP_LABEL, "")

    @property
    def scheduler_name(self) -> str:
        return self.spec.scheduler_name or DEFAULT_SCHEDULER

    @property
    def ports(self) -> PortedSpec:
        return PortedSpec(containers=self.spec.containers, init_containers=self.spec.init_containers)

    def gang(self, namespace: str) -> GangRef | None:
        """The gang that pods of this template belong to."""
        metadata = msgspec.structs.replace(self.metadata, namespace=namespace)
        return ref_of(Pod(metadata=metadata, spec=PodSpec(scheduling_group=self.spec.scheduling_group)))


class _JobSpec(ApiStruct):
    parallelism: int | None = None
    completions: int | None = None
    template: PodTemplate = msgspec.field(default_factory=PodTemplate)


class _Condition(ApiStruct):
    type: str = ""
    status: str = ""


class _Status(ApiStruct):
    conditions: list[_Condition] | None = None


class Job(ApiStruct):
    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    spec: _JobSpec = msgspec.field(default_factory=_JobSpec)
    status: _Status = msgspec.field(default_factory=_Status)


class _StatefulSetSpec(ApiStruct):
    replicas: int | None = None
    pod_management_policy: str | None = None
    template: PodTemplate = msgspec.field(default_factory=PodTemplate)


class StatefulSet(ApiStruct):
    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    spec: _StatefulSetSpec = msgspec.field(default_factory=_StatefulSetSpec)


class _JobTemplate(ApiStruct):
    spec: _JobSpec = msgspec.field(default_factory=_JobSpec)


class _ReplicatedJob(ApiStruct):
    name: str = ""
    replicas: int | None = None
    template: _JobTemplate = msgspec.field(default_factory=_JobTemplate)
    depends_on: list[dict[str, Any]] | None = None


class _StartupPolicy(ApiStruct):
    startup_policy_order: str = ""


class _JobSetSpec(ApiStruct):
    replicated_jobs: list[_ReplicatedJob] | None = None
    startup_policy: _StartupPolicy | None = None


class JobSet(ApiStruct):
    """Of jobset.x-k8s.io/v1alpha2."""

    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    spec: _JobSetSpec = msgspec.field(default_factory=_JobSetSpec)
    status: _Status = msgspec.field(default_factory=_Status)


@dataclass(frozen=True, slots=True)
class Part:
    """Pods of one template."""

    path: str
    """Of the template, as in the manifest."""
    template: PodTemplate
    at_once: int
    """So many of them run at a time."""
    size_field: str
    """What says so."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Whatever creates pods."""

    api_version: str
    kind: str
    metadata: ObjectMeta
    parts: tuple[Part, ...]
    one_by_one: str = ""
    """What makes it wait for pods before it creates others, and what to write instead; "" if nothing does."""
    finished: bool = False

    @property
    def key(self) -> Key:
        return Key(self.metadata.namespace, self.metadata.name)

    @property
    def annotations(self) -> Mapping[str, str]:
        return self.metadata.annotations or {}

    @property
    def wants_group(self) -> bool:
        return self.annotations.get(CREATE) == "true"

    @property
    def group_options(self) -> dict[str, str]:
        """The annotations that its PodGroup gets."""
        return {
            key: value
            for key, value in self.annotations.items()
            if key.startswith(PREFIX) and key not in _OF_THE_WORKLOAD
        }


API_VERSIONS = {"Job": "batch/v1", "StatefulSet": "apps/v1", "JobSet": "jobset.x-k8s.io/v1alpha2"}


def workload(kind: str, manifest: Mapping[str, Any]) -> Workload:
    """Reads a Job, a StatefulSet or a JobSet. Raises msgspec.ValidationError for what is none."""
    match kind:
        case "Job":
            job = msgspec.convert(manifest, Job)
            parts, done = (_part(job.spec, "spec", times=1),), _finished(job.status, "Complete")
            return Workload(API_VERSIONS[kind], kind, job.metadata, parts, finished=done)
        case "StatefulSet":
            stateful_set = msgspec.convert(manifest, StatefulSet)
            spec = stateful_set.spec
            replicas = 1 if spec.replicas is None else spec.replicas
            part = Part("spec.template", spec.template, replicas, "spec.replicas")
            in_order = spec.pod_management_policy != "Parallel" and replicas > 1
            one_by_one = (
                "spec.podManagementPolicy is OrderedReady: set it to Parallel (it can't be changed later)"
                if in_order
                else ""
            )
            return Workload(API_VERSIONS[kind], kind, stateful_set.metadata, (part,), one_by_one)
        case "JobSet":
            job_set = msgspec.convert(manifest, JobSet)
            return Workload(
                API_VERSIONS[kind],
                kind,
                job_set.metadata,
                tuple(_replicated(job_set.spec)),
                _waits_for_jobs(job_set.spec),
                finished=_finished(job_set.status, "Completed"),
            )
        case _:
            raise ValueError(f"no workload of kind {kind}")


def _part(spec: _JobSpec, path: str, *, times: int) -> Part:
    parallelism = 1 if spec.parallelism is None else spec.parallelism
    at_once, field = parallelism, "parallelism"
    if spec.completions is not None and spec.completions < parallelism:
        at_once, field = spec.completions, "completions"
    return Part(f"{path}.template", spec.template, at_once * times, f"{path}.{field}")


def _replicated(spec: _JobSetSpec) -> list[Part]:
    parts = []
    for n, each in enumerate(spec.replicated_jobs or ()):
        replicas = 1 if each.replicas is None else each.replicas
        path = f"spec.replicatedJobs[{n}].template.spec"
        parts.append(_part(each.template.spec, path, times=replicas))
    return parts


def _waits_for_jobs(spec: _JobSetSpec) -> str:
    jobs = spec.replicated_jobs or []
    if len([each for each in jobs if each.template.spec.template.group_name]) < 2:
        return ""
    if spec.startup_policy is not None and spec.startup_policy.startup_policy_order == "InOrder":
        return "spec.startupPolicy.startupPolicyOrder is InOrder: set it to AnyOrder"
    waiting = [each.name for each in jobs if each.depends_on and each.template.spec.template.group_name]
    if waiting:
        return f"job {waiting[0]} has dependsOn: remove it, or take the label from its template"
    return ""


def _finished(status: _Status, complete: str) -> bool:
    return any(
        each.type in (complete, "Failed") and each.status == "True" for each in status.conditions or ()
    )
