"""What we ask for at start, and what we say when we may not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from scheduler.api_objects import ClusterObject, PodDisruptionBudget, Service
from scheduler.core.gangs.ref import Source
from scheduler.kube.permissions import (
    GROUPS,
    JOURNAL,
    LEADER_ELECTION,
    SCHEDULING,
    MissingPermissions,
    missing_for_gangs,
    require_permissions,
)
from tests.unit.answers import client_of

REVIEW = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

Rule = Callable[[dict[str, str]], bool]


class Reviewer:
    """Answers access reviews by a rule and keeps what was asked."""

    def __init__(self, allows: Rule) -> None:
        self.allows = allows
        self.asked: list[dict[str, str]] = []

    def __call__(self, request: Any, body: Any) -> Any:
        assert (body["apiVersion"], body["kind"]) == ("authorization.k8s.io/v1", "SelfSubjectAccessReview")
        attributes = body["spec"]["resourceAttributes"]
        self.asked.append(attributes)
        return {"status": {"allowed": self.allows(attributes)}}


async def require(
    folder: Path,
    allows: Rule,
    *,
    watched: Sequence[type[ClusterObject]] = (),
    writes_volumes: bool = False,
    leader_elect: bool = True,
    delegates_authorization: bool = False,
) -> Reviewer:
    reviewer = Reviewer(allows)
    async with client_of(folder, {REVIEW: reviewer}) as client:
        await require_permissions(
            client,
            watched=watched,
            writes_volumes=writes_volumes,
            leader_elect=leader_elect,
            lease_namespace="kube-system",
            lease_name="wholepod",
            delegates_authorization=delegates_authorization,
        )
    return reviewer


async def test_every_permission_is_asked_for_once(tmp_path: Path) -> None:
    reviewer = await require(tmp_path, lambda asked: True)
    assert len(reviewer.asked) == len(SCHEDULING) + len(LEADER_ELECTION)
    assert {
        "verb": "create",
        "group": "",
        "resource": "pods",
        "subresource": "binding",
        "namespace": "",
        "name": "",
    } in reviewer.asked
    leases = {a["verb"]: (a["namespace"], a["name"]) for a in reviewer.asked if a["resource"] == "leases"}
    assert leases == {
        "create": ("kube-system", ""),
        "get": ("kube-system", "wholepod"),
        "update": ("kube-system", "wholepod"),
    }


async def test_kinds_that_plugins_watch_are_asked_for_in_their_group(tmp_path: Path) -> None:
    reviewer = await require(tmp_path, lambda asked: True, watched=[Service, PodDisruptionBudget])
    asked = [(a["verb"], a["group"], a["resource"]) for a in reviewer.asked]
    assert len(asked) == len(SCHEDULING) + len(LEADER_ELECTION) + 4
    assert {("list", "", "services"), ("watch", "", "services")} <= set(asked)
    assert {(verb, "policy", "poddisruptionbudgets") for verb in ("list", "watch")} <= set(asked)


async def test_volumes_are_asked_for_if_they_are_written(tmp_path: Path) -> None:
    reviewer = await require(tmp_path, lambda asked: True, writes_volumes=True)
    asked = [(a["verb"], a["resource"]) for a in reviewer.asked]
    assert len(asked) == len(SCHEDULING) + len(LEADER_ELECTION) + 4
    for resource in ("persistentvolumes", "persistentvolumeclaims"):
        assert {("get", resource), ("patch", resource)} <= set(asked)


async def test_reviews_are_asked_for_if_others_may_read_metrics(tmp_path: Path) -> None:
    reviewer = await require(tmp_path, lambda asked: True, delegates_authorization=True)
    asked = [(a["verb"], a["group"], a["resource"]) for a in reviewer.asked]
    assert len(asked) == len(SCHEDULING) + len(LEADER_ELECTION) + 2
    assert ("create", "authentication.k8s.io", "tokenreviews") in asked
    assert ("create", "authorization.k8s.io", "subjectaccessreviews") in asked


async def test_without_leader_election_leases_do_not_matter(tmp_path: Path) -> None:
    reviewer = await require(tmp_path, lambda a: a["resource"] != "leases", leader_elect=False)
    assert len(reviewer.asked) == len(SCHEDULING)


@pytest.mark.parametrize(
    ("allows", "missing"),
    [
        (lambda a: a["subresource"] != "binding", "create pods/binding"),
        (lambda a: a["verb"] != "patch", "patch pods/status"),
        (lambda a: a["group"] != "events.k8s.io", "create events.events.k8s.io"),
        (lambda a: a["resource"] != "nodes", "list nodes, watch nodes"),
        (
            lambda a: a["resource"] != "leases",
            "create leases.coordination.k8s.io, get leases.coordination.k8s.io, "
            "update leases.coordination.k8s.io",
        ),
    ],
)
async def test_what_is_missing_is_named_with_the_fix(allows: Rule, missing: str, tmp_path: Path) -> None:
    with pytest.raises(MissingPermissions) as caught:
        await require(tmp_path, allows)
    assert str(caught.value) == told(missing)


def told(missing: str) -> str:
    return (
        f"the account that Wholepod runs as may not: {missing}; grant it with a ClusterRole and binding "
        "as in deploy/base/rbac.yaml (`kubectl auth can-i --list --as=ACCOUNT` shows what it may do)"
    )


@pytest.mark.parametrize(
    ("allows", "journal", "groups"),
    [
        (lambda a: True, "", {}),
        (lambda a: a["verb"] != "update", told("update configmaps"), {}),
        (
            lambda a: a["verb"] != "patch",
            "",
            {Source.NATIVE: told("patch podgroups/status.scheduling.k8s.io")},
        ),
        (
            lambda a: a["group"] != "scheduling.x-k8s.io",
            "",
            {
                Source.COSCHEDULING: told(
                    "list podgroups.scheduling.x-k8s.io, watch podgroups.scheduling.x-k8s.io"
                )
            },
        ),
    ],
)
async def test_what_gangs_lack_is_told_apart(
    allows: Rule, journal: str, groups: dict[Source, str], tmp_path: Path
) -> None:
    reviewer = Reviewer(allows)
    async with client_of(tmp_path, {REVIEW: reviewer}) as client:
        lacks = await missing_for_gangs(client, lease_namespace="kube-system", lease_name="wholepod")
    assert lacks == (journal, groups)
    assert len(reviewer.asked) == len(JOURNAL) + sum(map(len, GROUPS.values()))
    configmaps = {a["verb"]: (a["namespace"], a["name"]) for a in reviewer.asked if not a["group"]}
    assert configmaps == {
        "create": ("kube-system", ""),
        "get": ("kube-system", "wholepod-journal"),
        "update": ("kube-system", "wholepod-journal"),
    }
