import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from scheduler.api import Pod
from scheduler.kube.client import KubeClient
from scheduler.kube.watch import Reflector
from tests.unit.kube.api_server import ApiServer
from tests.unit.kube.conftest import Until

LIST = "GET /api/v1/pods"


class Copy:
    """A handler that keeps what it was told, and how."""

    def __init__(self) -> None:
        self.pods: dict[str, Pod] = {}
        self.calls: list[str] = []
        self.synced: list[bool] = []

    def replace(self, items: list[Pod]) -> None:
        self.calls.append("replace")
        self.pods = {pod.metadata.name: pod for pod in items}

    def upsert(self, item: Pod) -> None:
        self.calls.append(f"upsert {item.metadata.name}")
        self.pods[item.metadata.name] = item

    def delete(self, item: Pod) -> None:
        self.calls.append(f"delete {item.metadata.name}")
        self.pods.pop(item.metadata.name, None)

    def on_sync_changed(self, synced: bool) -> None:
        self.synced.append(synced)


class Watching:
    """A reflector at work; waiting times are noted and not waited for."""

    def __init__(self, client: KubeClient, **options: object) -> None:
        self.copy = Copy()
        self.delays: list[float] = []
        self.skipped: list[str] = []
        self.now = 0.0
        self.reflector: Reflector[Pod] = Reflector(
            client,
            resource="pods",
            path="/api/v1/pods",
            item_type=Pod,
            handler=self.copy,
            rng=random.Random(1),
            sleep=self._sleep,
            clock=lambda: self.now,
            on_undecodable=lambda raw, error: self.skipped.append(str(error)),
            **options,  # type: ignore[arg-type]
        )
        self.task = asyncio.create_task(self.reflector.run())

    async def _sleep(self, seconds: float) -> None:
        self.delays.append(seconds)
        await asyncio.sleep(0.005)

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


Start = Callable[..., Watching]


@pytest_asyncio.fixture
async def start(client: KubeClient) -> AsyncIterator[Start]:
    running: list[Watching] = []

    def start_one(**options: object) -> Watching:
        running.append(Watching(client, **options))
        return running[-1]

    yield start_one
    for watching in running:
        await watching.stop()


async def test_streaming_list_then_changes(api: ApiServer, start: Start, until: Until) -> None:
    api.add_pod("a")
    api.add_pod("b")
    w = start()
    await until(lambda: w.reflector.synced)
    assert w.copy.calls == ["replace"]
    assert set(w.copy.pods) == {"a", "b"}
    api.add_pod("c")
    api.modify_pod("a", nodeName="n1")
    api.delete_pod("b")
    await until(lambda: "b" not in w.copy.pods)
    assert w.copy.calls == ["replace", "upsert c", "upsert a", "delete b"]
    assert w.copy.pods["a"].spec.node_name == "n1"
    assert w.copy.synced == [True]
    assert len(api.requests) == 1  # the stream that listed is the one that watches


async def test_the_first_picture_is_never_any_old_state(api: ApiServer, start: Start, until: Until) -> None:
    w = start(field_selector="status.phase!=Failed", label_selector="app=x")
    await until(lambda: w.reflector.synced)
    query = api.queries[0]
    assert query.pop("timeoutSeconds").isdigit()
    assert query == {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "fieldSelector": "status.phase!=Failed",
        "labelSelector": "app=x",
    }


async def test_list_in_pages_where_streaming_is_refused(api: ApiServer, start: Start, until: Until) -> None:
    api.streaming_lists = False
    api.page_limit = 2
    for i in range(5):
        api.add_pod(f"p{i}")
    w = start()
    await until(lambda: api.watchers)
    assert set(w.copy.pods) == {f"p{i}" for i in range(5)}
    assert w.copy.calls == ["replace"]
    assert [query.get("continue") for query in api.queries[1:4]] == [None, "2", "4"]
    assert "resourceVersion" not in api.queries[1]
    assert api.queries[4]["resourceVersion"] == str(api.resource_version)
    assert w.delays == []
    api.compact()  # and the refusal is remembered
    api.cut_watches()
    await until(lambda: w.copy.calls.count("replace") == 2)
    assert api.count(LIST) == len(api.queries)
    assert sum("sendInitialEvents" in query for query in api.queries) == 1


async def test_history_compacted_between_pages_is_listed_in_one_piece(
    api: ApiServer, start: Start, until: Until
) -> None:
    api.streaming_lists = False
    api.page_limit = 2
    for i in range(5):
        api.add_pod(f"p{i}")
    w = start()
    await until(lambda: api.count(LIST) >= 2)
    await until(lambda: w.reflector.synced)
    api.compact()
    seen = 0

    def expire_second_page(line: str) -> None:
        nonlocal seen
        seen += 1
        if seen == 2:
            api.fault(LIST, status=410, reason="Expired")

    api.executed = expire_second_page
    api.cut_watches()
    await until(lambda: w.copy.calls.count("replace") == 2)
    assert set(w.copy.pods) == {f"p{i}" for i in range(5)}
    assert "limit" not in [query for query in api.queries if "watch" not in query][-1]


async def test_a_cut_watch_resumes_where_it_was(api: ApiServer, start: Start, until: Until) -> None:
    api.add_pod("a")
    w = start()
    await until(lambda: w.reflector.synced)
    position = api.resource_version
    w.now = 30.0
    api.cut_watches()
    api.add_pod("b")  # while nobody watches
    await until(lambda: "b" in w.copy.pods)
    assert api.queries[-1]["resourceVersion"] == str(position)
    assert w.copy.calls == ["replace", "upsert b"]
    assert w.copy.synced == [True]
    assert w.delays == []  # it had been stable: no reason to wait


async def test_bookmarks_move_the_position(api: ApiServer, start: Start, until: Until) -> None:
    start()
    await until(lambda: api.watchers)
    api.send_bookmark(777)
    api.end_watches()
    await until(lambda: len(api.queries) == 2)
    assert api.queries[1]["resourceVersion"] == "777"


@pytest.mark.parametrize("where", ["answer", "event"])
async def test_gone_means_list_again(api: ApiServer, start: Start, until: Until, where: str) -> None:
    api.add_pod("a")
    w = start()
    await until(lambda: w.reflector.synced)
    w.now = 30.0
    if where == "answer":
        api.pods.clear()
        api.compact()
        api.cut_watches()
    else:
        api.pods.clear()
        api.send_event("ERROR", {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired"})
    await until(lambda: w.copy.calls.count("replace") == 2)
    assert w.copy.pods == {}
    assert w.copy.synced == [True, False, True]
    assert "sendInitialEvents" in api.queries[-1]
    assert len(w.delays) == 1  # lists are costly: not without a pause


async def test_throttled_watch_waits_as_told_and_resumes(api: ApiServer, start: Start, until: Until) -> None:
    w = start()
    await until(lambda: w.reflector.synced)
    api.fault(LIST, status=429, headers={"Retry-After": "9"})
    api.cut_watches()
    await until(lambda: len(api.queries) == 3 and api.watchers)
    assert w.delays[-1] >= 9.0
    assert w.copy.calls == ["replace"]


async def test_server_errors_back_off_and_keep_the_position(
    api: ApiServer, start: Start, until: Until
) -> None:
    w = start()
    await until(lambda: w.reflector.synced)
    api.fault(LIST, status=503, times=3)
    api.cut_watches()
    await until(lambda: len(api.queries) == 5 and api.watchers)
    assert w.copy.calls == ["replace"]
    assert len(w.delays) == 4
    for i, delay in enumerate(w.delays[1:]):  # the first was for the lost connection
        assert 0.8 * 2**i <= delay <= 2 * 0.8 * 2**i


async def test_a_position_that_is_always_refused_is_given_up(
    api: ApiServer, start: Start, until: Until
) -> None:
    w = start()
    await until(lambda: w.reflector.synced)
    api.fault(LIST, status=504, reason="Timeout", message="Too large resource version", times=5)
    api.cut_watches()
    await until(lambda: w.copy.calls.count("replace") == 2)
    assert w.copy.synced == [True, False, True]


async def test_server_restart(api: ApiServer, start: Start, until: Until) -> None:
    api.add_pod("a")
    w = start()
    await until(lambda: w.reflector.synced)
    await api.stop()
    await until(lambda: len(w.delays) >= 4)
    assert max(w.delays) <= 5.0  # nothing listens: soon again
    api.add_pod("b")
    await api.start()
    await until(lambda: "b" in w.copy.pods)
    assert w.copy.calls == ["replace", "upsert b"]


async def test_a_server_that_forgot_history_while_it_was_away(
    api: ApiServer, start: Start, until: Until
) -> None:
    w = start()
    await until(lambda: w.reflector.synced)
    await api.stop()
    await until(lambda: len(w.delays) >= 8)
    api.compact()
    await api.start()
    await until(lambda: w.copy.calls.count("replace") == 2)
    assert w.delays[-1] <= 2 * 0.8  # it is back: no reason to wait as for one that is not


async def test_a_connection_that_keeps_breaking(api: ApiServer, start: Start, until: Until) -> None:
    w = start()
    for cuts in range(1, 9):
        await until(lambda cuts=cuts: w.reflector.synced and len(api.watchers) == cuts)  # type: ignore[misc]
        api.cut_watches()
        await until(lambda cuts=cuts: len(w.delays) == cuts)  # type: ignore[misc]
    assert w.delays[0] < w.delays[2]
    assert max(w.delays) <= 5.0


async def test_waits_for_a_server_that_is_not_up_yet(api: ApiServer, start: Start, until: Until) -> None:
    await api.stop()
    w = start()
    await until(lambda: len(w.delays) >= 2)
    assert not w.reflector.synced
    await api.start()
    await until(lambda: w.reflector.synced)


async def test_half_a_line_is_not_applied(api: ApiServer, start: Start, until: Until) -> None:
    w = start()
    await until(lambda: w.reflector.synced)
    position = api.resource_version
    pod = api.add_pod("a")
    await until(lambda: w.copy.pods)
    api.send_raw(b'{"type":"DELETED","object":{"metadata":{"name":"a"')
    await asyncio.sleep(0.05)
    api.cut_watches()
    await until(lambda: len(api.queries) == 2)
    assert api.queries[1]["resourceVersion"] == pod["metadata"]["resourceVersion"] != str(position)
    assert set(w.copy.pods) == {"a"}


async def test_garbled_stream_is_listed_again(api: ApiServer, start: Start, until: Until) -> None:
    w = start()
    await until(lambda: w.reflector.synced)
    api.send_raw(b"}{\n")
    await until(lambda: w.copy.calls.count("replace") == 2)


@pytest.mark.parametrize("end", ["cut", "proper"])
async def test_half_a_streaming_list_is_not_shown(
    api: ApiServer, start: Start, until: Until, end: str
) -> None:
    api.ends_streaming_lists = False
    api.add_pod("a")
    w = start()
    await until(lambda: api.watchers)
    api.add_pod("b")
    await asyncio.sleep(0.05)
    assert not w.reflector.synced
    assert w.copy.calls == []
    api.ends_streaming_lists = True
    api.cut_watches() if end == "cut" else api.end_watches()
    await until(lambda: w.reflector.synced)
    assert w.copy.calls == ["replace"]
    assert set(w.copy.pods) == {"a", "b"}
    assert len(w.delays) == 1


async def test_changes_within_a_streaming_list_count(api: ApiServer, start: Start, until: Until) -> None:
    api.ends_streaming_lists = False
    api.add_pod("a")
    api.add_pod("b")
    w = start()
    await until(lambda: api.watchers)
    api.delete_pod("a")
    api.modify_pod("b", nodeName="n1")
    end = {"resourceVersion": "200", "annotations": {"k8s.io/initial-events-end": "true"}}
    api.send_event("BOOKMARK", {"kind": "Pod", "metadata": end})
    await until(lambda: w.reflector.synced)
    assert [pod.spec.node_name for pod in w.copy.pods.values()] == ["n1"]


async def test_large_pods_and_many_lines_arrive_whole(api: ApiServer, start: Start, until: Until) -> None:
    big = [{"name": "c", "image": "x" * 1_500_000}]
    api.add_pod("big0", containers=big)
    w = start()
    await until(lambda: w.reflector.synced)
    api.add_pod("big1", containers=big)
    for i in range(2000):
        api.add_pod(f"p{i}")
    api.add_pod("big2", containers=big)
    await until(lambda: "big2" in w.copy.pods)
    assert len(w.copy.pods) == 2003
    containers = w.copy.pods["big2"].spec.containers
    assert containers is not None
    assert len(containers[0].image) == 1_500_000


async def test_undecodable_objects_are_skipped(api: ApiServer, start: Start, until: Until) -> None:
    api.add_pod("good")
    api.add_pod("bad", containers="oops")
    w = start()
    await until(lambda: w.reflector.synced)
    assert set(w.copy.pods) == {"good"}
    assert len(w.skipped) == 1
    api.modify_pod("good", containers="oops")  # what was known stays
    api.add_pod("next")
    await until(lambda: "next" in w.copy.pods)
    assert set(w.copy.pods) == {"good", "next"}
    assert len(w.skipped) == 2
    api.delete_pod("good")  # but gone is gone
    await until(lambda: "good" not in w.copy.pods)
    position = api.resource_version
    api.end_watches()
    await until(lambda: len(api.queries) == 2)
    assert api.queries[1]["resourceVersion"] == str(position)


async def test_undecodable_objects_in_a_plain_list_are_skipped(
    api: ApiServer, start: Start, until: Until
) -> None:
    api.streaming_lists = False
    api.add_pod("bad", containers="oops")
    api.add_pod("good")
    w = start()
    await until(lambda: w.reflector.synced)
    assert set(w.copy.pods) == {"good"}
    assert len(w.skipped) == 1


async def test_out_of_sync_only_after_the_grace(api: ApiServer, start: Start, until: Until) -> None:
    w = start(grace_s=10.0)
    await until(lambda: w.reflector.synced)
    await api.stop()
    await until(lambda: w.delays)
    assert w.reflector.synced
    w.now += 9.9
    assert w.reflector.synced
    w.now += 0.2
    assert not w.reflector.synced
    await api.start()
    await until(lambda: w.reflector.synced)


async def test_losing_sync_is_told_without_being_asked(
    api: ApiServer, client: KubeClient, until: Until
) -> None:
    copy = Copy()
    reflector = Reflector(
        client, resource="pods", path="/api/v1/pods", item_type=Pod, handler=copy, grace_s=0.05
    )
    task = asyncio.create_task(reflector.run())
    await until(lambda: reflector.synced)
    await api.stop()
    await until(lambda: copy.synced == [True, False])
    await api.start()
    await until(lambda: copy.synced == [True, False, True])
    assert copy.calls == ["replace"]
    task.cancel()


async def test_relist_on_demand(api: ApiServer, start: Start, until: Until) -> None:
    api.add_pod("a")
    w = start()
    await until(lambda: w.reflector.synced)
    w.reflector.relist()
    assert not w.reflector.synced
    await until(lambda: w.reflector.synced)
    assert w.copy.calls == ["replace", "replace"]
    assert w.copy.synced == [True, False, True]
    assert w.delays == []


@pytest.mark.parametrize("streaming", [True, False])
async def test_relist_while_listing_takes_a_newer_picture(
    api: ApiServer, start: Start, until: Until, streaming: bool
) -> None:
    api.streaming_lists = streaming
    api.fault(LIST, delay_s=0.1, times=2)
    w = start()
    await until(lambda: api.count(LIST) == (1 if streaming else 2))
    w.reflector.relist()
    assert not w.reflector.synced
    await until(lambda: w.reflector.synced)
    pictures = [q for q in api.queries if ("watch" not in q) or "sendInitialEvents" in q]
    assert len(pictures) == (2 if streaming else 3)


async def test_what_the_handler_raises_is_not_swallowed(api: ApiServer, start: Start) -> None:
    api.add_pod("a")
    w = start()
    w.copy.replace = lambda items: 1 / 0  # type: ignore[method-assign,assignment]
    with pytest.raises(ZeroDivisionError):
        async with asyncio.timeout(5):
            await w.task


async def test_a_cancelled_reflector_leaves_no_watch_behind(
    api: ApiServer, kubeconfig: Path, until: Until
) -> None:
    async with KubeClient.from_config(kubeconfig) as client:
        w = Watching(client)
        await until(lambda: w.reflector.synced)
        await w.stop()

    def server_noticed() -> bool:
        api.send_raw(b"\n")
        return not api.watchers

    await until(server_noticed)
