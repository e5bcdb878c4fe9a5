"""Asks the API server at start whether we may do what we will have to do.

Without this a missing rule shows as pods that are never bound, hours later. The list is also the
smallest ClusterRole that works.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from scheduler.api_objects import ClusterObject
from scheduler.core.gangs.ref import Source
from scheduler.kube.client import KubeClient
from scheduler.kube.errors import KubeError
from scheduler.kube.resources import RESOURCES

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@dataclass(frozen=True)
class Permission:
    verb: str
    resource: str
    group: str = ""
    subresource: str = ""

    def __str__(self) -> str:
        resource = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return f"{self.verb} {resource}{'.' + self.group if self.group else ''}"


SCHEDULING = (
    Permission("list", "pods"),
    Permission("watch", "pods"),
    Permission("get", "pods"),
    Permission("list", "nodes"),
    Permission("watch", "nodes"),
    Permission("list", "namespaces"),
    Permission("watch", "namespaces"),
    Permission("create", "pods", subresource="binding"),
    Permission("patch", "pods", subresource="status"),
    Permission("delete", "pods"),
    Permission("create", "events", group="events.k8s.io"),
)
VOLUMES = tuple(
    Permission(verb, resource)
    for resource in ("persistentvolumes", "persistentvolumeclaims")
    for verb in ("get", "patch")
)
"""What it takes to carry out plans for pods' volumes."""
JOURNAL = tuple(Permission(verb, "configmaps") for verb in ("create", "get", "update"))
"""What it takes to bind gangs, in the lease's namespace."""
GROUPS = {
    Source.NATIVE: (
        Permission("list", "podgroups", "scheduling.k8s.io"),
        Permission("watch", "podgroups", "scheduling.k8s.io"),
        Permission("patch", "podgroups", "scheduling.k8s.io", "status"),
    ),
    Source.COSCHEDULING: (
        Permission("list", "podgroups", "scheduling.x-k8s.io"),
        Permission("watch", "podgroups", "scheduling.x-k8s.io"),
    ),
}
"""What it takes to know groups of pods, served or not, and to say that they were placed."""
DELEGATION = (
    Permission("create", "tokenreviews", "authentication.k8s.io"),
    Permission("create", "subjectaccessreviews", "authorization.k8s.io"),
)
"""What it takes to ask who may read metrics."""
LEADER_ELECTION = tuple(
    Permission(verb, "leases", group="coordination.k8s.io") for verb in ("create", "get", "update")
)


def to_watch(kind: type[ClusterObject]) -> tuple[Permission, ...]:
    """What it takes to watch the objects of a kind."""
    resource = RESOURCES[kind]
    return tuple(Permission(verb, resource.name, resource.group) for verb in ("list", "watch"))


def journal_name(lease_name: str) -> str:
    """The ConfigMap of whoever holds this lease; another lease has another journal."""
    return f"{lease_name}-journal"


class MissingPermissions(KubeError):
    """The text names what is missing and how to grant it."""


class _Status(msgspec.Struct):
    allowed: bool = False


class _Review(msgspec.Struct):
    status: _Status = msgspec.field(default_factory=_Status)


async def require_permissions(
    client: KubeClient,
    *,
    watched: Iterable[type[ClusterObject]],
    writes_volumes: bool,
    leader_elect: bool,
    lease_namespace: str,
    lease_name: str,
    delegates_authorization: bool,
) -> None:
    """Raises MissingPermissions, or what `KubeClient.request` raises."""
    permissions = [*SCHEDULING]
    permissions += VOLUMES if writes_volumes else ()
    permissions += DELEGATION if delegates_authorization else ()
    permissions += [permission for kind in watched for permission in to_watch(kind)]
    missing = await _missing(client, permissions)
    if leader_elect:
        missing += await _missing(client, LEADER_ELECTION, lease_namespace, lease_name)
    if missing:
        raise MissingPermissions(_text(missing))


async def missing_for_gangs(
    client: KubeClient, *, lease_namespace: str, lease_name: str
) -> tuple[str, dict[Source, str]]:
    """Why no gang can be bound, and why gangs that these objects describe can't be known; empty for what
    can. The journal is beside the lease. Single pods need none of it: kube-scheduler's own role has none.

    Raises what `KubeClient.request` raises.
    """
    journal = await _missing(client, JOURNAL, lease_namespace, journal_name(lease_name))
    groups = {source: await _missing(client, permissions) for source, permissions in GROUPS.items()}
    return (
        _text(journal) if journal else "",
        {source: _text(missing) for source, missing in groups.items() if missing},
    )


async def why_not(client: KubeClient, permissions: Iterable[Permission], manifest: str) -> str:
    """The same of what can be done without: empty when it may."""
    missing = await _missing(client, permissions)
    return _text(missing, manifest) if missing else ""


async def require(client: KubeClient, permissions: Iterable[Permission], manifest: str) -> None:
    """Of any other command; `manifest` is the file that grants them. Raises MissingPermissions, or what
    `KubeClient.request` raises."""
    missing = await _missing(client, permissions)
    if missing:
        raise MissingPermissions(_text(missing, manifest))


def _text(missing: Iterable[str], manifest: str = "deploy/base/rbac.yaml") -> str:
    return (
        f"the account that Wholepod runs as may not: {', '.join(missing)}; grant it with a ClusterRole "
        f"and binding as in {manifest} (`kubectl auth can-i --list --as=ACCOUNT` shows what it "
        "may do)"
    )


async def _missing(
    client: KubeClient, wanted: Iterable[Permission], namespace: str = "", name: str = ""
) -> list[str]:
    # `create` can't be limited to a name (the name is not known to the authoriser then).
    return [
        str(permission)
        for permission in wanted
        if not await _allowed(client, permission, namespace, "" if permission.verb == "create" else name)
    ]


async def _allowed(client: KubeClient, permission: Permission, namespace: str, name: str) -> bool:
    attributes = {
        "verb": permission.verb,
        "group": permission.group,
        "resource": permission.resource,
        "subresource": permission.subresource,
        "namespace": namespace,
        "name": name,
    }
    body = msgspec.json.encode(
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
    )
    answer = await client.request("POST", _REVIEWS, body=body)
    return msgspec.json.decode(answer.body, type=_Review).status.allowed
