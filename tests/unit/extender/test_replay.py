"""A real kube-scheduler's requests are answered as when they were recorded, in any case of letters."""

from typing import Any

import pytest

from scheduler.extender import wire
from tests.unit.extender.replay import MODES, Json, Replay, encoded, recorded

VERBS = ["bind", "filter", "preempt", "prioritize"]


def lower_cased(request: Json) -> Json:
    """The protocol's own fields; what is within pods and nodes is Kubernetes' JSON, and names are names."""
    victims = ("NodeNameToVictims", "NodeNameToMetaVictims")
    lowered: Json = {}
    for key, value in request.items():
        if key in victims and value is not None:
            lowered[key.lower()] = {node: lowered_victims(each) for node, each in value.items()}
        else:
            lowered[key.lower()] = value
    return lowered


def lowered_victims(victims: Json) -> Json:
    pods = [pod if "metadata" in pod else {"uid": pod["UID"]} for pod in victims["Pods"]]
    return {"pods": pods, "numpdbviolations": victims["NumPDBViolations"]}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", [dict, lower_cased], ids=["as sent", "lower case"])
def test_answers_are_those_that_were_recorded(mode: str, case: Any) -> None:
    nodes, exchanges = recorded(mode)
    replay, pods = Replay(nodes), dict[str, Json]()
    for each in exchanges:
        body = encoded(case(each.request))
        if each.verb == "bind":
            bound = wire.decode_binding_args(body)
            assert (bound.name, bound.node) == (each.request["PodName"], each.request["Node"])
            asked = replay.verbs.known(bound.uid)
            assert asked is not None
            assert replay.verbs.refusal(asked, bound.node) is None
            replay.see(pods[bound.uid], bound.node)
            continue
        pod = each.request["Pod"]
        if pod["metadata"]["uid"] not in pods:
            replay.see(pod)
        pods[pod["metadata"]["uid"]] = pod
        if each.verb != "preempt":
            assert replay.answer(each.verb, body) == each.answer
            continue
        assert replay.answer(each.verb, body) == each.answer
        # kube-scheduler evicts them, and the pod's turn comes again.
        chosen = min(each.answer["NodeNameToMetaVictims"].values(), key=lambda v: len(v["Pods"]))
        assert chosen["Pods"]
        break  # whom it chose is its own matter
    else:
        raise AssertionError("there was no preemption")


@pytest.mark.parametrize("mode", MODES)
def test_all_verbs_are_recorded(mode: str) -> None:
    exchanges = recorded(mode)[1]
    assert sorted({each.verb for each in exchanges}) == VERBS
    field, other = ("NodeNames", "Nodes") if mode == "names" else ("Nodes", "NodeNames")
    for each in exchanges:
        if each.verb in ("filter", "prioritize"):
            assert each.request[other] is None
            assert each.request[field] is not None
        if each.verb == "filter":
            assert each.answer[other] is None
            assert each.answer[field] is not None
