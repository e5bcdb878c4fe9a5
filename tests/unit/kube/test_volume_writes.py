"""The writes of a plan for volumes, one request at a time, against a server that fails on purpose."""

from __future__ import annotations

import random
from typing import Any

import pytest

from scheduler.api_objects import PersistentVolume, PersistentVolumeClaim
from scheduler.core.volumes.plan import ObjectVersion, Provisioning, StaticBinding, VolumePlan
from scheduler.kube.client import KubeClient
from scheduler.kube.steps import Again
from scheduler.kube.volume_writes import NotWritten, VolumeOutcome, VolumeRequest, VolumeWrites, Written
from tests.unit.kube.api_server import ApiServer

BOUND_BY = "pv.kubernetes.io/bound-by-controller"
SELECTED = "volume.kubernetes.io/selected-node"
MODIFIED = (
    'Operation cannot be fulfilled on {} "{}": the object has been modified; please apply your changes to '
    "the latest version and try again"
)


def version(obj: dict[str, Any]) -> ObjectVersion:
    metadata = obj["metadata"]
    return ObjectVersion(
        metadata["name"], metadata["uid"], metadata["resourceVersion"], metadata.get("namespace", "")
    )


def binding(api: ApiServer, **how: bool) -> VolumePlan:
    """Of the claim `data` to the volume `pv`, as they are now."""
    claim, volume = api.claims["default", "data"], api.volumes["", "pv"]
    return VolumePlan("n", bindings=(StaticBinding(version(claim), version(volume), **how),))


def provisioning(api: ApiServer) -> VolumePlan:
    return VolumePlan("n", provisions=(Provisioning(version(api.claims["default", "data"])),))


@pytest.fixture(autouse=True)
def objects(api: ApiServer) -> None:
    api.add_claim("data")
    api.add_volume("pv")


async def carry_out(client: KubeClient, plan: VolumePlan, *, steps: int = 30) -> VolumeOutcome:
    writes = VolumeWrites(VolumeRequest("default", "pod", "uid", plan), rng=random.Random(1))
    for _ in range(steps):
        result = await writes.step(client)
        if not isinstance(result, Again):
            return result
    raise AssertionError("no outcome")


def claim_ref(api: ApiServer) -> dict[str, Any]:
    reference: dict[str, Any] = api.volumes["", "pv"]["spec"].get("claimRef", {})
    return reference


def selected(api: ApiServer) -> str | None:
    node: str | None = api.claims["default", "data"]["metadata"].get("annotations", {}).get(SELECTED)
    return node


async def test_a_volume_gets_its_claim(api: ApiServer, client: KubeClient) -> None:
    claim = api.claims["default", "data"]["metadata"]
    outcome = await carry_out(client, binding(api))
    volume = api.volumes["", "pv"]
    assert volume["spec"]["claimRef"] == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": "default",
        "name": "data",
        "uid": "uid-data",
        "resourceVersion": claim["resourceVersion"],
    }
    assert volume["metadata"]["annotations"] == {BOUND_BY: "yes"}
    assert outcome == Written({(PersistentVolume, "pv"): volume["metadata"]["resourceVersion"]})
    assert len(api.requests) == 1


async def test_a_claim_gets_its_node(api: ApiServer, client: KubeClient) -> None:
    outcome = await carry_out(client, provisioning(api))
    written = api.claims["default", "data"]["metadata"]["resourceVersion"]
    assert outcome == Written({(PersistentVolumeClaim, "default/data"): written})
    assert selected(api) == "n"


async def test_all_of_a_plan_volumes_first(api: ApiServer, client: KubeClient) -> None:
    other = api.add_claim("other")
    plan = VolumePlan("n", binding(api).bindings, (Provisioning(version(other)),))
    outcome = await carry_out(client, plan)
    assert isinstance(outcome, Written)
    assert len(outcome.versions) == 2
    assert api.requests == [
        "PATCH /api/v1/persistentvolumes/pv",
        "PATCH /api/v1/namespaces/default/persistentvolumeclaims/other",
    ]


async def test_what_a_user_reserved_gets_the_uid_and_no_mark(api: ApiServer, client: KubeClient) -> None:
    api.touch(api.volumes["", "pv"], {"spec": {"claimRef": {"namespace": "default", "name": "data"}}})
    await carry_out(client, binding(api, set_by_controller=False))
    assert claim_ref(api)["uid"] == "uid-data"
    assert "annotations" not in api.volumes["", "pv"]["metadata"]


async def test_what_is_reserved_already_gets_no_request(api: ApiServer, client: KubeClient) -> None:
    done = binding(api, set_claim_ref=False, set_by_controller=False).bindings
    await carry_out(client, VolumePlan("n", done, provisioning(api).provisions))
    assert api.count("persistentvolumes") == 0


@pytest.mark.parametrize("fault", [{"drop": True}, {"status": 500}, {"status": 504}])
@pytest.mark.parametrize("executed", [True, False])
@pytest.mark.parametrize("what", ["volume", "claim"])
async def test_a_lost_answer_is_asked_for(
    what: str, executed: bool, fault: dict[str, Any], api: ApiServer, client: KubeClient
) -> None:
    api.fault("PATCH", execute=executed, **fault)
    outcome = await carry_out(client, binding(api) if what == "volume" else provisioning(api))
    assert isinstance(outcome, Written)
    obj = api.volumes["", "pv"] if what == "volume" else api.claims["default", "data"]
    assert list(outcome.versions.values()) == [obj["metadata"]["resourceVersion"]]
    assert api.count("PATCH") == (1 if executed else 2)
    assert api.count("GET") == 1


async def test_a_controller_that_wrote_the_status_meanwhile_is_no_obstacle(
    api: ApiServer, client: KubeClient
) -> None:
    plan = VolumePlan("n", binding(api).bindings, provisioning(api).provisions)
    api.touch(api.volumes["", "pv"], {"status": {"phase": "Available"}})
    api.touch(api.claims["default", "data"], {"metadata": {"annotations": {"by": "somebody"}}})
    assert isinstance(await carry_out(client, plan), Written)
    assert api.claims["default", "data"]["metadata"]["annotations"] == {"by": "somebody", SELECTED: "n"}


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"claimRef": {"namespace": "default", "name": "other", "uid": "uid-other"}}},
        {"spec": {"claimRef": {"namespace": "elsewhere", "name": "data", "uid": "uid-data"}}},
        {"spec": {"claimRef": {"namespace": "default", "name": "data", "uid": "of an earlier one"}}},
        {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}},
        {"metadata": {"uid": "another"}},
    ],
    ids=["other claim", "other namespace", "earlier claim", "deleting", "created again"],
)
async def test_a_volume_that_is_taken_stays_taken(
    change: dict[str, Any], api: ApiServer, client: KubeClient
) -> None:
    plan = binding(api)
    api.touch(api.volumes["", "pv"], change)
    before = dict(api.volumes["", "pv"]["spec"])
    assert await carry_out(client, plan) == NotWritten(MODIFIED.format("persistentvolumes", "pv"))
    assert api.volumes["", "pv"]["spec"] == before


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"annotations": {SELECTED: "m"}}},
        {"spec": {"volumeName": "by-hand"}},
        {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}},
        {"metadata": {"uid": "another"}},
    ],
    ids=["other node", "bound", "deleting", "created again"],
)
async def test_a_claim_that_has_other_plans_keeps_them(
    change: dict[str, Any], api: ApiServer, client: KubeClient
) -> None:
    plan = provisioning(api)
    api.touch(api.claims["default", "data"], change)
    assert await carry_out(client, plan) == NotWritten(MODIFIED.format("persistentvolumeclaims", "data"))
    assert selected(api) != "n"


async def test_what_another_process_wrote_for_us_counts(api: ApiServer, client: KubeClient) -> None:
    plan = VolumePlan("n", binding(api).bindings, provisioning(api).provisions)
    assert isinstance(await carry_out(client, plan), Written)
    writes = api.resource_version
    assert isinstance(await carry_out(client, plan), Written)
    assert api.resource_version == writes


@pytest.mark.parametrize(("status", "reason"), [(404, "NotFound"), (403, "Forbidden"), (422, "Invalid")])
async def test_a_refusal_ends_it(status: int, reason: str, api: ApiServer, client: KubeClient) -> None:
    api.fault("PATCH", status=status, reason=reason, message="not so")
    assert await carry_out(client, binding(api)) == NotWritten("not so")
    assert len(api.requests) == 1


async def test_too_many_requests_is_a_pause(api: ApiServer, client: KubeClient) -> None:
    api.fault("PATCH", status=429, headers={"Retry-After": "3"})
    writes = VolumeWrites(VolumeRequest("default", "pod", "uid", binding(api)), rng=random.Random(1))
    assert await writes.step(client) == Again(pause_s=3.0)
    assert isinstance(await writes.step(client), Written)


async def test_no_connection_is_a_pause_however_long(api: ApiServer, client: KubeClient) -> None:
    writes = VolumeWrites(VolumeRequest("default", "pod", "uid", binding(api)), rng=random.Random(1))
    await api.stop()
    for _ in range(20):
        assert await writes.step(client) == Again(pause_s=0.5)
    await api.start()
    assert isinstance(await writes.step(client), Written)


async def test_a_server_that_always_fails_is_given_up(api: ApiServer, client: KubeClient) -> None:
    api.fault("persistentvolumes", times=100, status=500, message="webhook is down")
    assert await carry_out(client, binding(api)) == NotWritten("webhook is down")
    assert len(api.requests) == 8


async def test_whoever_changes_it_all_the_time_wins(api: ApiServer, client: KubeClient) -> None:
    volume = api.volumes["", "pv"]
    api.executed = lambda line: api.touch(volume, {}) if line.startswith("PATCH") else None
    assert await carry_out(client, binding(api)) == NotWritten("the object has been modified")
    assert claim_ref(api) == {}


async def test_an_answer_that_is_none_is_asked_for_again(api: ApiServer, client: KubeClient) -> None:
    api.fault("PATCH", status=200, execute=True)  # a Status, without metadata
    outcome = await carry_out(client, binding(api))
    assert outcome == Written(
        {(PersistentVolume, "pv"): api.volumes["", "pv"]["metadata"]["resourceVersion"]}
    )
