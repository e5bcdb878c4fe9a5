"""What is answered when things are not as usual: empty and null lists, strange nodes, useless victims."""

import json
from typing import Any

import pytest

from scheduler.extender import wire
from scheduler.extender.verbs import UNKNOWN, Refused, UnknownNodes, Verbs
from scheduler.extender.wire import WireError
from tests.builders import decode_node, make_engine, make_node, make_pod, make_profile
from tests.unit.extender.replay import Json, Replay, encoded


def pod(name: str = "pod", memory: str = "1Gi", **spec: Any) -> Json:
    container = {"name": "main", "image": "pause", "resources": {"requests": {"memory": memory}}}
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-of-{name}",
            "creationTimestamp": None,
        },
        "spec": {"containers": [container], "schedulerName": "default-scheduler", **spec},
        "status": {},
    }


def node(name: str, memory: str = "4Gi", **spec: Any) -> Json:
    allocatable = {"cpu": "8", "memory": memory, "pods": "110"}
    return {"metadata": {"name": name}, "spec": spec, "status": {"allocatable": allocatable}}


TAINTED: Json = {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}


def cluster(unknown_nodes: UnknownNodes = "refuse") -> Replay:
    return Replay([node("large"), node("small", "1Gi"), node("tainted", **TAINTED)], unknown_nodes)


def ask(replay: Replay, verb: str, who: Json, names: list[str] | None) -> Any:
    return replay.answer(verb, encoded({"Pod": who, "Nodes": None, "NodeNames": names}))


def test_a_node_fails_in_kube_schedulers_words() -> None:
    replay = cluster()
    replay.engine.upsert_node(decode_node(node("full")))
    replay.see(pod("there", "3Gi"), "full")
    answer = ask(replay, "filter", pod(memory="2Gi"), ["small", "tainted", "large", "full"])
    assert answer == {
        "Nodes": None,
        "NodeNames": ["large"],
        "FailedNodes": {"full": "Insufficient memory"},
        "FailedAndUnresolvableNodes": {
            "small": "Insufficient memory",
            "tainted": "node(s) had untolerated taint(s)",
        },
        "Error": "",
    }


def test_nodes_come_back_as_they_came() -> None:
    nodes = [node("small", "1Gi"), {**node("large"), "kind": "Node", "more": [1.5, "ü"]}]
    body = encoded({"Pod": pod(memory="2Gi"), "Nodes": {"metadata": {}, "items": nodes}, "NodeNames": None})
    answer = cluster().answer("filter", body)
    assert answer["Nodes"]["items"] == nodes[1:]
    assert answer["NodeNames"] is None


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({"Nodes": None, "NodeNames": None}, {"Nodes": None, "NodeNames": None}),
        ({}, {"Nodes": None, "NodeNames": None}),
        ({"NodeNames": []}, {"Nodes": None, "NodeNames": []}),
        ({"Nodes": {"items": []}}, {"Nodes": {"metadata": {}, "items": []}, "NodeNames": None}),
        ({"Nodes": {"items": None}}, {"Nodes": {"metadata": {}, "items": []}, "NodeNames": None}),
        ({"Nodes": {}}, {"Nodes": {"metadata": {}, "items": []}, "NodeNames": None}),
    ],
)
def test_empty_lists_stay_empty_and_null_stays_null(lists: Json, expected: Json) -> None:
    body = encoded({"Pod": pod(), **lists})
    answer = cluster().answer("filter", body)
    assert {name: answer[name] for name in ("Nodes", "NodeNames")} == expected
    assert answer["Error"] == ""
    assert cluster().answer("prioritize", body) == []


def test_a_node_that_is_not_known() -> None:
    names = ["large", "new"]
    refused = ask(cluster(), "filter", pod(), names)
    assert refused["NodeNames"] == ["large"]
    assert refused["FailedNodes"] == {"new": UNKNOWN}
    assert ask(cluster("pass"), "filter", pod(), names)["NodeNames"] == names
    scores = [{"Host": "large", "Score": 10}, {"Host": "new", "Score": 0}]
    assert ask(cluster("pass"), "prioritize", pod(), names) == scores


def test_only_the_best_nodes_score_10() -> None:
    replay = Replay([node(f"n{i}", "8Gi") for i in range(4)])
    replay.see(pod("there", "4Gi"), "n1")
    replay.see(pod("there-too", "6Gi"), "n2")
    answer = ask(replay, "prioritize", pod(memory="1Gi"), ["n0", "n1", "n2", "n3"])
    placed = replay.verbs.of(replay.see(pod(memory="1Gi")))
    chosen = placed.cycle.place(placed.info, placed.key).node
    scores = {each["Host"]: each["Score"] for each in answer}
    assert [host for host, score in scores.items() if score == 10] == [chosen]
    assert scores["n0"] == scores["n3"] < 10
    assert all(type(score) is int and 0 <= score <= 10 for score in scores.values())


def test_only_the_nodes_that_are_asked_about_are_compared() -> None:
    replay = Replay([node(f"n{i}", "8Gi") for i in range(3)])
    replay.see(pod("there", "4Gi"), "n1")
    assert ask(replay, "prioritize", pod(), ["n2", "n0"]) == [
        {"Host": "n2", "Score": 10},
        {"Host": "n0", "Score": 10},
    ]


def test_preemption_keeps_the_nodes_where_it_helps() -> None:
    replay = cluster()
    replay.see(pod("a", "3Gi"), "large")
    replay.see(pod("b", "1Gi"), "small")
    victims = {
        "large": {"Pods": [{"UID": "uid-of-a"}], "NumPDBViolations": 1},
        "small": {"Pods": [{"UID": "uid-of-b"}], "NumPDBViolations": 0},
        "tainted": {"Pods": [], "NumPDBViolations": 0},
    }
    before = replay.engine.state.nodes.requested.copy()
    body = encoded({"Pod": pod(memory="2Gi"), "NodeNameToVictims": None, "NodeNameToMetaVictims": victims})
    assert replay.answer("preempt", body) == {"NodeNameToMetaVictims": {"large": victims["large"]}}
    assert (replay.engine.state.nodes.requested == before).all()


def test_a_pod_that_cannot_be_read_is_refused_by_name() -> None:
    with pytest.raises(Refused, match=r"pod default/pod: .*lots"):
        ask(cluster(), "filter", pod(memory="lots"), ["large"])


def test_a_pod_of_another_scheduler_name_is_judged_by_the_first_profile() -> None:
    engine = make_engine(None, make_profile("a"), make_profile("b"))
    engine.upsert_node(make_node().obj())
    verbs = Verbs(engine)
    info = make_pod().info()
    assert verbs.of(info).cycle is engine.cycles["a"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'{"Pod":null}',
        b'{"Pod":{}}',
        b'{"Pod":[]}',
        b'{"Pod":{"metadata":{"uid":"u"}},"NodeNames":[1]}',
        b'{"Pod":{"metadata":{"uid":"u"}},"NodeNames":{}}',
        b'{"Pod":{"metadata":{"uid":"u"}},"Nodes":[]}',
        b'{"Pod":{"metadata":{"uid":"u"}},"Nodes":{"items":[{}]}}',
        b'{"Pod":{"metadata":{"uid":"\xff"}},"NodeNames":[]}',
        b'{"Pod":' + b"[" * 100_000,
    ],
)
def test_what_is_no_request_is_told_so(body: bytes) -> None:
    with pytest.raises(WireError):
        wire.decode_args(body)


def test_the_last_of_several_fields_counts() -> None:
    body = json.dumps({"Pod": pod(), "NodeNames": ["a"]})[:-1] + ', "nodenames": ["b"]}'
    assert wire.decode_args(body.encode()).names == ["b"]


@pytest.mark.parametrize("field", ["PodName", "PodNamespace", "Node"])
@pytest.mark.parametrize("name", ["..", "../../nodes/n", "a/b", "a?x=1", "a%2Fb", "\n", "A", "a" * 254, ""])
def test_a_bind_leads_nowhere_else(field: str, name: str) -> None:
    request = {"PodName": "p", "PodNamespace": "ns", "PodUID": "u", "Node": "n.example.com"}
    assert wire.decode_binding_args(encoded(request)).node == "n.example.com"
    with pytest.raises(WireError, match=field):
        wire.decode_binding_args(encoded({**request, field: name}))


def test_what_no_api_server_takes_is_not_kept() -> None:
    with pytest.raises(WireError, match="bytes"):
        wire.decode_args(encoded({"Pod": pod(more="x" * (3 << 20)), "NodeNames": []}))
    request = {"PodName": "p", "PodNamespace": "ns", "PodUID": "u" * 254, "Node": "n"}
    with pytest.raises(WireError, match="PodUID"):
        wire.decode_binding_args(encoded(request))
