"""Nominated pods, as the engine's calls show them."""

from __future__ import annotations

from tests.unit.core.evicting import REQUIRED, Cluster, high, low, node, preempting, uid, victims


def test_its_room_is_kept_from_equals_and_lower_ones_but_not_from_higher_ones() -> None:
    cluster = preempting()
    cluster.gone("a")  # 4 free, 2 of them promised
    cluster.pods(high("equal", cpu="3"), high("lower", cpu="3", priority=1))
    for _ in range(2):
        decision = cluster.decide()
        assert (decision.node, decision.preemption) == (None, None)
        assert decision.message.startswith("0/1 nodes are available: 1 Insufficient cpu. ")
    cluster.pods(high("small", cpu="2"))
    assert cluster.decide().node == "n"
    cluster.gone("small")
    cluster.pods(high("higher", cpu="3", priority=11))
    assert cluster.decide().node == "n"


def test_pods_that_made_way_are_woken_when_the_nomination_goes() -> None:
    cluster = preempting()
    cluster.gone("a")
    cluster.pods(high("equal", cpu="3"))
    assert cluster.decide().node is None
    assert cluster.decide_later() is None
    cluster.gone("high")
    decision = cluster.decide()
    assert (decision.pod.uid, decision.node) == (uid("equal"), "n")


def test_each_of_many_preemptors_is_woken_by_its_own_victim() -> None:
    cluster = Cluster()
    cluster.nodes(*(node(f"n{i}") for i in range(4)))
    cluster.pods(*(low(f"v{i}", f"n{i}", cpu="4") for i in range(4)), *(high(f"h{i}", "3") for i in range(4)))
    chosen = {}
    for _ in range(4):
        decision = cluster.decide()
        [chosen[decision.pod.uid]] = victims(decision)
        cluster.engine.preemption_done(decision.pod.uid)
    assert len(set(chosen.values())) == 4
    assert cluster.decide_later() is None
    for pod, victim in reversed(chosen.items()):
        cluster.gone(victim)
        decision = cluster.decide()
        assert (decision.pod.uid, decision.node) == (pod, victim.replace("v", "n"))
        assert cluster.decide_later() is None


def test_pods_of_lower_priority_lose_their_nomination() -> None:
    cluster = Cluster()
    cluster.nodes(node())
    cluster.pods(low("a", cpu="4"), high("middle", priority=5))
    assert victims(cluster.decide()) == ["a"]
    cluster.engine.preemption_done(uid("middle"))
    cluster.pods(high("top", cpu="4"))
    decision = cluster.decide()
    assert decision.preemption is not None
    assert [pod.uid for pod in decision.preemption.displaced] == [uid("middle")]
    assert cluster.nominated_to("middle") is None
    again = cluster.decide_later()
    assert again is not None
    assert (again.pod.uid, again.preemption) == (uid("middle"), None)


def test_its_own_node_is_tried_first() -> None:
    cluster = Cluster()
    cluster.nodes(node("a"), node("b"), node("c"))
    for name in "abc":
        cluster.pods(high(f"to-{name}").status(nominatedNodeName=name))
    assert {d.pod.uid: d.node for d in (cluster.decide() for _ in range(3))} == {
        uid(f"to-{name}"): name for name in "abc"
    }


def test_somebody_elses_nomination_counts() -> None:
    cluster = Cluster()
    cluster.nodes(node())
    cluster.pods(high("gated", cpu="4").gated().status(nominatedNodeName="n"), high())
    assert cluster.decide().node is None
    cluster.pods(high("gated", cpu="4").gated())  # taken back
    decision = cluster.decide_later()
    assert decision is not None
    assert decision.node == "n"


def test_a_nomination_is_cleared_when_nothing_helps() -> None:
    cluster = Cluster()
    cluster.nodes(node(), node("m"))
    cluster.pods(low("a", cpu="4", priority=10), low("b", "m", cpu="4", priority=10))
    cluster.pods(high().status(nominatedNodeName="n"))
    decision = cluster.decide()
    assert decision.nominated_node == ""
    assert cluster.nominated_to("high") is None
    cluster.pods(high().status(nominatedNodeName="n").labels(any="thing"))  # the watch is behind
    assert cluster.nominated_to("high") is None
    cluster.pods(high().status())
    cluster.pods(high().status(nominatedNodeName="m"))  # news
    assert cluster.nominated_to("high") == "m"


def test_our_own_nomination_outlives_what_the_watch_has_not_heard_of() -> None:
    cluster = preempting()
    cluster.pods(high().status(conditions=[]))
    assert cluster.nominated_to("high") == "n"
    cluster.pods(high().status(nominatedNodeName="n"))
    assert cluster.nominated_to("high") == "n"


def test_a_nomination_goes_with_its_node() -> None:
    cluster = preempting()
    cluster.engine.remove_node("n")
    assert cluster.nominated_to("high") is None


def test_a_nomination_to_a_node_that_comes_later_counts() -> None:
    cluster = Cluster()
    cluster.nodes(node("m"))
    cluster.pods(high("gated", cpu="4").gated().status(nominatedNodeName="n"))
    cluster.pods(high("first", cpu="4"), high("second"))
    assert cluster.decide().node == "m"
    assert cluster.decide().node is None
    cluster.nodes(node())
    assert cluster.decide_later() is None
    cluster.gone("gated")
    decision = cluster.decide()
    assert (decision.pod.uid, decision.node) == (uid("second"), "n")


def test_bound_by_somebody_else_meanwhile() -> None:
    cluster = preempting()
    cluster.pods(high().on("elsewhere"))
    assert cluster.nominated_to("high") is None
    cluster.engine.preemption_done(uid("high"))
    assert cluster.place_of("high") is None


def test_affinity_must_not_count_on_a_nominated_pod() -> None:
    cluster = Cluster()
    cluster.nodes(node().labels({"zone": "z"}))
    near = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "x"}}}
    cluster.pods(high("friend").gated().labels(app="x").status(nominatedNodeName="n"))
    cluster.pods(high().spec(affinity={"podAffinity": {REQUIRED: [near]}}))
    decision = cluster.decide()
    assert decision.message.startswith("0/1 nodes are available: 1 node(s) didn't match pod affinity rules.")


def test_anti_affinity_does() -> None:
    cluster = Cluster()
    cluster.nodes(node("n").labels({"zone": "z"}), node("m").labels({"zone": "y"}))
    apart = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "x"}}}
    cluster.pods(high("rival", cpu="0").gated().labels(app="x").status(nominatedNodeName="n"))
    cluster.pods(high(cpu="3").spec(affinity={"podAntiAffinity": {REQUIRED: [apart]}}))
    assert cluster.decide().node == "m"
