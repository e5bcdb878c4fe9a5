"""The journal against an API server that loses, refuses and delays, and against other journals."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from scheduler.kube.client import KubeClient, Response
from scheduler.kube.journal import Journal
from scheduler.kube.journal_format import Entry, Fenced, JournalUnavailable
from tests.unit.kube.api_server import ApiServer
from tests.unit.kube.conftest import Until

KEY = ("kube-system", "wholepod-journal")
PUT = "PUT .*/configmaps"
GET = "GET .*/configmaps"


def entry(txn: str, **changes: Any) -> Entry:
    fields: dict[str, Any] = {
        "txn": txn,
        "gang": f"podgroup:ns/{txn}",
        "min_count": 3,
        "epoch": 1,
        "started": 9,
    }
    return Entry(**(fields | changes))


def journal(client: KubeClient, owner: str, **options: Any) -> Journal:
    return Journal(client, namespace="kube-system", owner=owner, rng=random.Random(1), **options)


def data(api: ApiServer) -> dict[str, str]:
    found: dict[str, str] = api.config_maps[KEY]["data"]
    return found


def entries(api: ApiServer) -> dict[str, Any]:
    return {key: json.loads(text) for key, text in data(api).items() if key.startswith("gang.")}


Open = Callable[..., Awaitable[Journal]]


@pytest_asyncio.fixture
async def opened(client: KubeClient) -> AsyncIterator[Open]:
    """`await opened("owner")`: a journal that is open and at work."""
    tasks: list[asyncio.Task[None]] = []

    async def open_one(owner: str, **options: Any) -> Journal:
        one = journal(client, owner, **options)
        await one.open()
        tasks.append(asyncio.create_task(one.run()))
        return one

    yield open_one
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# Opening.


async def test_the_first_one_creates_it(api: ApiServer, client: KubeClient) -> None:
    left = await journal(client, "a").open()
    assert left.entries == ()
    assert data(api) == {"epoch": "1", "owner": "a", "serial": "1"}


async def test_the_next_one_counts_up_and_finds_what_was_left(
    api: ApiServer, client: KubeClient, opened: Open
) -> None:
    a = await opened("a")
    await a.record(entry("t1"))
    await a.record(entry("t2", state="compensating", domain="zone=a", uid="u"))
    b = journal(client, "b")
    left = await b.open()
    assert b.epoch == 2
    assert set(left.entries) == {entry("t1"), entry("t2", state="compensating", domain="zone=a", uid="u")}
    assert abs(left.server_ahead_s) < 60
    assert (data(api)["epoch"], data(api)["owner"]) == ("2", "b")


@pytest.mark.parametrize("execute", [True, False])
@pytest.mark.parametrize("first", [True, False])
async def test_an_answer_that_is_lost_while_opening(
    api: ApiServer, client: KubeClient, execute: bool, first: bool
) -> None:
    if not first:
        await journal(client, "z").open()
    api.fault("(POST|PUT) .*/configmaps", drop=True, execute=execute)
    a = journal(client, "a")
    await a.open()
    assert a.epoch == (1 if first else 2)
    assert (data(api)["epoch"], data(api)["owner"]) == (str(a.epoch), "a")


async def test_of_two_that_open_at_once_each_has_an_epoch_of_its_own(
    api: ApiServer, client: KubeClient
) -> None:
    a, b = journal(client, "a"), journal(client, "b")
    await asyncio.gather(a.open(), b.open())
    assert {a.epoch, b.epoch} == {1, 2}
    assert data(api)["owner"] == ("a" if a.epoch == 2 else "b")


async def test_what_cannot_be_read_is_dropped_and_the_epoch_only_grows(
    api: ApiServer, client: KubeClient
) -> None:
    a = journal(client, "a")
    await a.open()
    data(api).update({"epoch": "many", "gang.x": "no JSON", "gang.y": "{}", "note": "hands off"})
    data(api)["gang.t"] = json.dumps(
        {"txn": "t", "gang": "g", "minCount": 2, "epoch": 7, "started": 1, "new": 1}
    )
    data(api)["gang.other"] = data(api)["gang.t"]
    left = await journal(client, "b").open()
    assert [found.txn for found in left.entries] == ["t"]
    assert data(api)["epoch"] == "8"
    assert set(data(api)) == {"epoch", "owner", "serial", "gang.t"}


async def test_an_answer_without_a_date_opens_it_all_the_same(
    api: ApiServer, client: KubeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a proxy, say: then its clock counts as ours."""
    await journal(client, "a").open()
    request = client.request

    async def dateless(*args: Any, **options: Any) -> Response:
        answer = await request(*args, **options)
        return answer._replace(headers={"Date": "soon"})

    monkeypatch.setattr(client, "request", dateless)
    assert (await journal(client, "b").open()).server_ahead_s == 0.0


async def test_opening_is_refused(api: ApiServer, client: KubeClient) -> None:
    api.fault(GET, status=403, reason="Forbidden", message="no")
    a = journal(client, "a")
    with pytest.raises(JournalUnavailable, match="not allowed to get configmaps"):
        await a.open()
    assert "not allowed" in a.trouble
    with pytest.raises(JournalUnavailable, match="not allowed to get configmaps"):
        await a.record(entry("t"))
    await a.open()
    assert a.trouble == ""


async def test_who_does_not_lead_does_not_open(api: ApiServer, client: KubeClient) -> None:
    with pytest.raises(Fenced):
        await journal(client, "a", may_write=lambda: False).open()
    assert api.config_maps == {}


# Writing.


async def test_an_entry_comes_changes_and_goes(api: ApiServer, opened: Open) -> None:
    a = await opened("a")
    await a.record(entry("t", domain="zone=a"))
    assert entries(api) == {
        "gang.t": {
            "txn": "t",
            "gang": "podgroup:ns/t",
            "uid": "",
            "minCount": 3,
            "domain": "zone=a",
            "epoch": 1,
            "state": "binding",
            "started": 9,
        }
    }
    assert len(data(api)["gang.t"]) < 200
    await a.update(entry("t", state="compensating"))
    assert entries(api)["gang.t"]["state"] == "compensating"
    await a.remove("t")
    assert entries(api) == {}
    assert a.in_flight == 0


async def test_what_is_asked_for_together_is_one_write(api: ApiServer, opened: Open) -> None:
    a = await opened("a")
    api.requests.clear()
    await asyncio.gather(*(a.record(entry(f"t{i}")) for i in range(200)))
    assert len(entries(api)) == 200
    assert api.count(PUT) == 1
    # Removals wait for company, here for that of an intent.
    removals = [asyncio.create_task(a.remove(f"t{i}")) for i in range(200)]
    await asyncio.sleep(0)
    await a.record(entry("next"))
    await asyncio.gather(*removals)
    assert api.count(PUT) == 2
    assert set(entries(api)) == {"gang.next"}


async def test_labels_on_it_survive(api: ApiServer, opened: Open) -> None:
    a = await opened("a")
    api.config_maps[KEY]["metadata"]["labels"] = {"mine": "yes"}
    api.config_maps[KEY]["metadata"]["resourceVersion"] = "9999"
    await a.record(entry("t"))
    assert api.config_maps[KEY]["metadata"]["labels"] == {"mine": "yes"}
    assert set(entries(api)) == {"gang.t"}


@pytest.mark.parametrize("status", [500, 503, 504, 0])
@pytest.mark.parametrize("execute", [True, False])
async def test_a_lost_answer_is_settled_by_reading(
    api: ApiServer, opened: Open, execute: bool, status: int
) -> None:
    a = await opened("a")
    api.requests.clear()
    api.fault(PUT, status=status, drop=not status, execute=execute)
    await a.record(entry("t"))
    assert set(entries(api)) == {"gang.t"}
    if status:  # an HTTP client repeats by itself what was cut off
        assert api.count(PUT) == (1 if execute else 2)


async def test_a_write_that_was_lost_cannot_come_back(api: ApiServer, opened: Open, until: Until) -> None:
    """An intent that was given up, and whose write is carried out after all, would stay for ever."""
    a = await opened("a", intent_timeout_s=0.05)
    before = api.config_maps[KEY]["metadata"]["resourceVersion"]
    api.fault(PUT, status=504, delay_s=0.1)
    with pytest.raises(JournalUnavailable, match=r"can't be written: no answer in time"):
        await a.record(entry("t"))
    # The version that the lost write names is past soon, though the content is what it was.
    await until(lambda: api.config_maps[KEY]["metadata"]["resourceVersion"] != before)
    assert entries(api) == {}


async def test_an_outage_is_waited_out(api: ApiServer, opened: Open) -> None:
    a = await opened("a")
    await a.record(entry("t"))
    await api.stop()
    update = asyncio.create_task(a.update(entry("t", state="compensating")))
    await asyncio.sleep(0.3)
    assert not update.done()
    assert "cannot reach the API server" in a.trouble
    await api.start()
    await update
    assert entries(api)["gang.t"]["state"] == "compensating"
    assert a.trouble == ""


async def test_an_intent_is_given_up_in_an_outage_and_leaves_nothing(api: ApiServer, opened: Open) -> None:
    a = await opened("a", intent_timeout_s=0.2)
    await a.record(entry("before"))
    await api.stop()
    with pytest.raises(JournalUnavailable, match="cannot reach the API server"):
        await a.record(entry("t"))
    await api.start()
    await a.update(entry("u"))
    await a.remove("before")
    assert set(entries(api)) == {"gang.u"}


async def test_a_refused_intent_fails_at_once_and_says_why(api: ApiServer, opened: Open) -> None:
    a = await opened("a")
    api.fault(PUT, status=403, reason="Forbidden", message="a webhook says no")
    with pytest.raises(JournalUnavailable, match=r"not allowed to update configmaps.*a webhook says no"):
        await a.record(entry("t"))
    await a.record(entry("u"))
    assert set(entries(api)) == {"gang.u"}


async def test_a_removal_goes_on_when_it_is_refused(api: ApiServer, opened: Open) -> None:
    a = await opened("a")
    await a.record(entry("t"))
    api.fault(PUT, status=422, reason="Invalid", message="for a while", times=2)
    await a.remove("t")
    assert entries(api) == {}


async def test_it_is_never_filled_beyond_its_limit(api: ApiServer, opened: Open) -> None:
    a = await opened("a", max_bytes=700)
    for i in range(5):
        await a.record(entry(f"t{i}"))
    with pytest.raises(JournalUnavailable, match=r"the journal is full: 5 gangs are being bound"):
        await a.record(entry("t5"))
    await a.update(entry("t0", state="compensating"))  # what is under way can always be undone
    await a.remove("t0")
    await a.record(entry("t5"))


async def test_deleted_by_hand_it_is_written_anew(api: ApiServer, opened: Open) -> None:
    a = await opened("a")
    await a.record(entry("t"))
    api.config_maps.clear()
    await a.record(entry("u"))
    assert set(entries(api)) == {"gang.t", "gang.u"}
    api.config_maps.clear()
    await a.verify()
    assert set(entries(api)) == {"gang.t", "gang.u"}


async def test_names_that_no_key_can_have_are_refused(opened: Open) -> None:
    a = await opened("a")
    with pytest.raises(ValueError, match="can't be called"):
        await a.record(entry("a/b"))


async def test_closed_it_leaves_nobody_waiting(client: KubeClient) -> None:
    a = journal(client, "a")
    await a.open()
    task = asyncio.create_task(a.run())
    record = asyncio.create_task(a.record(entry("t")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(JournalUnavailable, match="closed"):
        await record
    await asyncio.gather(task, return_exceptions=True)


# Fencing.


@pytest.mark.parametrize("what", ["record", "update", "remove", "verify"])
async def test_a_former_leader_is_fenced(api: ApiServer, client: KubeClient, opened: Open, what: str) -> None:
    a = await opened("a")
    await a.record(entry("t"))
    await a.verify()
    await journal(client, "b").open()
    before = dict(data(api))
    calls: dict[str, Callable[[], Awaitable[None]]] = {
        "record": lambda: a.record(entry("u")),
        "update": lambda: a.update(entry("t", state="compensating")),
        "remove": lambda: a.remove("t"),
        "verify": a.verify,
    }
    with pytest.raises(Fenced, match="is in epoch 2 of b, not in epoch 1 of a"):
        await calls[what]()
    with pytest.raises(Fenced):
        await a.record(entry("v"))
    assert data(api) == before
    assert "epoch 2 of b" in a.trouble


async def test_run_ends_when_fenced(client: KubeClient) -> None:
    a = journal(client, "a")
    await a.open()
    run = asyncio.create_task(a.run())
    await journal(client, "b").open()
    with pytest.raises(Fenced):
        await a.verify()
    with pytest.raises(Fenced):
        await run


async def test_one_that_does_not_lead_any_more_writes_nothing(
    api: ApiServer, opened: Open, until: Until
) -> None:
    leads = True
    a = await opened("a", may_write=lambda: leads)
    await a.record(entry("t"))
    api.config_maps.clear()  # not even a new one, which would be a new leader's ruin
    leads = False
    with pytest.raises(Fenced, match="does not lead"):
        await a.record(entry("u"))
    assert api.config_maps == {}
