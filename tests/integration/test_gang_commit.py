"""Commits of gangs on a real API server, where answers get lost and two leaders meet.

The account may do what `MEMBERS` lists and write events, and no more. What the API server keeps is
looked at past the proxy, through the tests' own client.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import msgspec
import pytest

from scheduler.api import Pod
from scheduler.kube.binding import Bound, Refused
from scheduler.kube.client import KubeClient
from scheduler.kube.gangs.actions import TXN_ANNOTATION, Commit, Ended, Member
from scheduler.kube.gangs.committer import INCOMPLETE
from scheduler.kube.gangs.pods import TOUCHED
from scheduler.kube.gangs.recovery import member_of
from scheduler.kube.journal import JOURNAL_NAME
from scheduler.kube.journal_format import Fenced
from scheduler.kube.permissions import JOURNAL, Permission
from tests.cluster import ControlPlane, pod_manifest
from tests.integration.harness import DEADLINE_S, Json
from tests.integration.observer import condition
from tests.integration.proxy import Proxy
from tests.integration.workbench import Workbench
from tests.unit.kube.gangs.leader import Leader

_gangs = count(1)


@pytest.fixture(scope="module")
def token(shared_plane: ControlPlane) -> str:
    """Of an account with these rights alone."""
    events = Permission("create", "events", group="events.k8s.io")
    create, *named = JOURNAL
    roles = [
        _role("ClusterRole", [_rule(permission) for permission in (*MEMBERS, events)]),
        _role(
            "Role",
            [
                _rule(create),
                *(_rule(permission) | {"resourceNames": [JOURNAL_NAME]} for permission in named),
            ],
        ),
    ]
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _METADATA}
    for manifest in (account, *roles, *(_bound_to_account(role) for role in roles)):
        shared_plane.kubectl("apply", "--filename=-", stdin=json.dumps(manifest))
    return shared_plane.kubectl("create", "token", "committer", "--namespace=kube-system").strip()


_METADATA = {"name": "committer", "namespace": "kube-system"}
MEMBERS = (
    Permission("get", "pods"),
    Permission("create", "pods", subresource="binding"),
    Permission("patch", "pods", subresource="status"),
    Permission("delete", "pods"),
)
_RBAC = "rbac.authorization.k8s.io"


def _rule(permission: Permission) -> Json:
    resource = f"{permission.resource}/{permission.subresource}".rstrip("/")
    return {"apiGroups": [permission.group], "resources": [resource], "verbs": [permission.verb]}


def _role(kind: str, rules: list[Json]) -> Json:
    return {"apiVersion": f"{_RBAC}/v1", "kind": kind, "metadata": _METADATA, "rules": rules}


def _bound_to_account(role: Json) -> Json:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": f"{role['kind']}Binding",
        "metadata": _METADATA,
        "roleRef": {"apiGroup": _RBAC, "kind": role["kind"], "name": "committer"},
        "subjects": [{"kind": "ServiceAccount", **_METADATA}],
    }


class Stage:
    """A gang's pods, the way to the API server, and short words for both."""

    def __init__(self, bench: Workbench, proxy: Proxy, token: str) -> None:
        self.bench, self.proxy = bench, proxy
        self.txn = f"t{next(_gangs)}"
        config = json.loads(proxy.kubeconfig(bench.plane).read_text())
        config["users"][0]["user"] = {"token": token}
        self.kubeconfig = bench.plane.folder / f"committer-{self.txn}.kubeconfig"
        self.kubeconfig.write_text(json.dumps(config))

    def pod(self, name: str, *, owned: bool = True, **spec: Any) -> Member:
        manifest = pod_manifest(
            name, {"memory": "1Gi"}, namespace=self.bench.namespace, labels={"gang": "g"}, **spec
        )
        if owned:
            owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j", "controller": True}
            manifest["metadata"]["ownerReferences"] = [owner]
        return member_of(msgspec.convert(self.bench.api.create(manifest), Pod), "node")

    def commit(self, *members: Member, **more: Any) -> Commit:
        fields: dict[str, Any] = {"gang": "g", "min_count": len(members), "deadline_s": 600.0}
        return Commit(txn=self.txn, members=members, **(fields | more))

    def listed(self) -> list[Json]:
        items: list[Json] = self.bench.api.get(f"/api/v1/namespaces/{self.bench.namespace}/pods")["items"]
        return items

    def bound(self) -> set[str]:
        return {pod["metadata"]["name"] for pod in self.listed() if "nodeName" in pod["spec"]}

    def entry(self) -> Json | None:
        """The transaction's entry in the journal."""
        found = self.bench.api.get("/api/v1/namespaces/kube-system/configmaps")["items"]
        [data] = [item["data"] for item in found if item["metadata"]["name"] == JOURNAL_NAME]
        return json.loads(data[f"gang.{self.txn}"]) if f"gang.{self.txn}" in data else None

    @asynccontextmanager
    async def leader(self, name: str, **options: Any) -> AsyncIterator[Leader]:
        async with KubeClient.from_config(self.kubeconfig) as client:
            leader = Leader(client, f"{name} of {self.txn}", **options)
            try:
                yield leader
            finally:
                await leader.stop()


@pytest.fixture
def stage(bench: Workbench, token: str) -> Iterator[Stage]:
    with Proxy(bench.plane) as proxy:
        yield Stage(bench, proxy, token)
        proxy.release_answers()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110  (they have no event)
            await asyncio.sleep(0.02)


async def test_a_gang_is_bound_under_its_entry(stage: Stage) -> None:
    seen: list[Json | None] = []
    async with stage.leader("a", before_bind=lambda: seen.append(stage.entry())) as leader:
        await leader.lead()
        leader.committer.start(stage.commit(*(stage.pod(name) for name in "abc"), domain="zone=z"))
        await until(lambda: leader.ended)
    assert leader.ended[stage.txn] == Ended(True)
    assert leader.announced == [stage.txn]
    assert stage.bound() == {"a", "b", "c"}
    for entry in seen:
        assert entry is not None
        assert (entry["gang"], entry["minCount"], entry["domain"], entry["state"]) == (
            "g",
            3,
            "zone=z",
            "binding",
        )
    for pod in stage.listed():
        assert pod["metadata"]["annotations"][TXN_ANNOTATION] == stage.txn
    assert stage.entry() is None


async def test_a_member_that_has_changed_is_bound_only_after_another_look(stage: Stage) -> None:
    async with stage.leader("a") as leader:
        await leader.lead()
        members = [stage.pod(name) for name in "ab"]
        stage.bench.api.patch(stage.bench.path("a"), {"metadata": {"labels": {"changed": "yes"}}})
        leader.committer.start(stage.commit(*members))
        await until(lambda: leader.ended)
        assert stage.bound() == {"a", "b"}
        assert leader.short == []


async def test_the_answer_to_the_intent_is_lost(stage: Stage) -> None:
    async with stage.leader("a") as leader:
        await leader.lead()
        stage.proxy.hold_answers()
        leader.committer.start(stage.commit(*(stage.pod(name) for name in "abc")))
        await until(stage.entry)
        assert stage.bound() == set()
        stage.proxy.cut()
        stage.proxy.release_answers()
        await until(lambda: leader.ended)
    assert leader.ended[stage.txn].complete
    assert stage.bound() == {"a", "b", "c"}
    assert stage.entry() is None


async def test_the_answers_to_binds_are_lost(stage: Stage) -> None:
    async with stage.leader("a", before_bind=stage.proxy.hold_answers) as leader:
        await leader.lead()
        leader.committer.start(stage.commit(*(stage.pod(name) for name in "abc")))
        await until(stage.bound)  # at least one, on the connection that there is already
        assert leader.outcomes == {}
        stage.proxy.cut()
        stage.proxy.release_answers()
        await until(lambda: leader.ended)
    assert leader.outcomes == dict.fromkeys("abc", Bound("node"))
    assert stage.entry() is None


async def test_a_former_leader_is_fenced_and_its_heir_ends_what_it_began(stage: Stage) -> None:
    async with stage.leader("former") as former, stage.leader("heir") as heir:
        await former.lead()
        a, b, c = (stage.pod(name) for name in "abc")
        former.committer.start(stage.commit(a, b, min_count=3))
        await until(lambda: len(former.outcomes) == 2)
        assert former.short == [1]
        await heir.lead(*stage.listed())
        [unfinished] = [found for found in heir.unfinished if found.entry.txn == stage.txn]
        assert {member.name for member in unfinished.bound} == {"a", "b"}
        assert [member.name for member in unfinished.unbound] == ["c"]
        assert condition(stage.bench.api.get(stage.bench.path("c")), TOUCHED)["message"].startswith("epoch ")
        # The former one has decided on the last member and would bind it now, in two ways.
        former.writer.bind(c.to_bind(stage.txn))
        former.committer.extend(stage.txn, [c])
        with pytest.raises(Fenced):
            await former.tasks[-1]
        await until(lambda: former.writer.pending()["bind"] == 0)
        assert isinstance(former.strays[c.uid], Refused)
        assert stage.bound() == {"a", "b"}
        heir.committer.extend(stage.txn, [msgspec.structs.replace(unfinished.unbound[0], node="node")])
        await until(lambda: heir.ended)
    assert heir.ended[stage.txn].complete
    assert stage.bound() == {"a", "b", "c"}
    assert stage.entry() is None


async def test_compensation_deletes_exactly_the_bound_members_that_have_a_controller(stage: Stage) -> None:
    async with stage.leader("a") as leader:
        await leader.lead()
        members = [stage.pod("a"), stage.pod("b"), stage.pod("orphan", owned=False)]
        gated = stage.pod("gated", schedulingGates=[{"name": "wait"}])
        by_hand = stage.pod("by-hand", nodeName="node")
        stage.pod("spare")
        leader.on_missing = lambda txn: leader.committer.compensate(txn, "no room")
        leader.committer.start(stage.commit(*members, gated, min_count=5, already_bound=(by_hand,)))
        await until(lambda: leader.ended)
        ended = leader.ended[stage.txn]
        assert (ended.complete, [member.name for member in ended.stay]) == (False, ["orphan"])
        await until(lambda: leader.writer.pending()["event"] == 0)
    # No kubelet ends them here: they are terminating.
    leaving = {
        pod["metadata"]["name"]: pod for pod in stage.listed() if "deletionTimestamp" in pod["metadata"]
    }
    assert set(leaving) == {"a", "b"}
    for pod in leaving.values():
        why = condition(pod, "DisruptionTarget")
        assert (why["status"], why["reason"]) == ("True", INCOMPLETE)
    assert stage.bound() == {"a", "b", "orphan", "by-hand"}
    assert stage.bench.wait_event("orphan", INCOMPLETE)["type"] == "Warning"
    assert stage.entry() is None


async def test_without_its_rights_no_gang_is_begun(stage: Stage, token: str) -> None:
    role = f"/apis/{_RBAC}/v1/namespaces/kube-system/roles/committer"
    async with stage.leader("a") as leader:
        await leader.lead()
        rules = stage.bench.api.get(role)["rules"]
        stage.bench.api.patch(role, {"rules": []})
        try:
            await until(lambda: not _may_update(stage))
            leader.committer.start(stage.commit(stage.pod("a")))
            await until(lambda: leader.ended)
        finally:
            stage.bench.api.patch(role, {"rules": rules})
    assert "not allowed to update configmaps" in leader.ended[stage.txn].why
    assert stage.bound() == set()
    await until(lambda: _may_update(stage))


def _may_update(stage: Stage) -> bool:
    """The authoriser learns of changed roles a moment later."""
    attributes = {
        "verb": "update",
        "resource": "configmaps",
        "namespace": "kube-system",
        "name": JOURNAL_NAME,
    }
    review = stage.bench.api.post(
        "/apis/authorization.k8s.io/v1/subjectaccessreviews",
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": "system:serviceaccount:kube-system:committer", "resourceAttributes": attributes},
        },
    )
    allowed: bool = review["status"]["allowed"]
    return allowed
