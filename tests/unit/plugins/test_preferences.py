"""Scores and filters that rest on node objects alone: taints to avoid, preferred affinity, images, features.

Cases follow plugins/{tainttoleration,nodeaffinity,imagelocality,nodedeclaredfeatures}/*_test.go.
"""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.core.plugin import ScorePlugin
from scheduler.core.pod_info import PodInfo
from scheduler.plugins.image_locality import ImageLocality
from scheduler.plugins.node_affinity import REASON, REASON_ENFORCED, NodeAffinity
from scheduler.plugins.node_declared_features import REASON as MISSING_FEATURE
from scheduler.plugins.node_declared_features import NodeDeclaredFeatures
from scheduler.plugins.taint_toleration import TaintToleration
from tests.builders import NodeBuilder, PodBuilder, make_node, make_pod
from tests.unit.plugins.filtering import reasons, state_of

MIB = 1024 * 1024


def scores(plugin: ScorePlugin, pod: PodBuilder, *nodes: NodeBuilder) -> tuple[list[int], list[int]]:
    """(raw, normalised), all nodes being feasible."""
    raw = plugin.score(pod.info(), state_of(*nodes).nodes.view())
    return raw.tolist(), plugin.normalize(raw).tolist()


def one_of(key: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": "In", "values": list(values)}


# ---- TaintToleration


def avoided(name: str, *keys: str) -> NodeBuilder:
    node = make_node(name)
    for key in keys:
        node.taint(key, "v", "PreferNoSchedule")
    return node


@pytest.mark.parametrize(
    ("pod", "raw", "normalized"),
    [
        (make_pod(), [0, 1, 3], [100, 67, 0]),
        (make_pod().toleration("a", operator="Exists"), [0, 0, 2], [100, 100, 0]),
        (make_pod().toleration("a", value="v", effect="PreferNoSchedule"), [0, 0, 2], [100, 100, 0]),
        # A toleration for another effect or value does not count.
        (make_pod().toleration("a", operator="Exists", effect="NoSchedule"), [0, 1, 3], [100, 67, 0]),
        (make_pod().toleration("a", value="other"), [0, 1, 3], [100, 67, 0]),
        (make_pod().toleration(operator="Exists"), [0, 0, 0], [100, 100, 100]),
    ],
)
def test_taints_that_are_not_tolerated_count(pod: PodBuilder, raw: list[int], normalized: list[int]) -> None:
    nodes = [avoided("none"), avoided("one", "a"), avoided("three", "a", "b", "c")]
    assert scores(TaintToleration(), pod, *nodes) == (raw, normalized)


def test_only_taints_that_repel_softly_are_scored() -> None:
    node = make_node("hard").taint("a", effect="NoSchedule").taint("b", effect="NoExecute")
    assert scores(TaintToleration(), make_pod(), node, avoided("soft", "a")) == ([0, 1], [100, 0])


# ---- NodeAffinity


def zoned(name: str, zone: str, **labels: str) -> NodeBuilder:
    return make_node(name).labels({"zone": zone, **labels})


def test_weights_of_matching_terms_add_up() -> None:
    pod = (
        make_pod().prefers(4, one_of("zone", "a")).prefers(2, one_of("disk", "ssd"), one_of("zone", "a", "b"))
    )
    nodes = [zoned("w", "a", disk="ssd"), zoned("x", "a"), zoned("y", "b", disk="ssd"), zoned("z", "c")]
    assert scores(NodeAffinity(), pod, *nodes) == ([6, 4, 2, 0], [100, 66, 33, 0])


def test_empty_and_unreadable_preferences_prefer_nothing() -> None:
    number = {"key": "zone", "operator": "Gt", "values": ["two"]}
    pod = make_pod().prefers(100).prefers(50, number)
    assert scores(NodeAffinity(), pod, zoned("a", "3"), make_node("b")) == ([0, 0], [0, 0])


def test_a_pod_without_preferences_is_not_rated() -> None:
    pinned = make_pod().affinity({"matchExpressions": [one_of("zone", "a")]}).info()
    assert not NodeAffinity().rates(pinned)
    assert NodeAffinity().rates(make_pod().prefers(1, one_of("zone", "a")).info())
    added = {"preferredDuringSchedulingIgnoredDuringExecution": [weighted(1, one_of("zone", "a"))]}
    assert NodeAffinity({"addedAffinity": added}).rates(pinned)


def weighted(weight: int, *expressions: dict[str, Any]) -> dict[str, Any]:
    return {"weight": weight, "preference": {"matchExpressions": list(expressions)}}


def enforced(*expressions: dict[str, Any]) -> dict[str, Any]:
    terms = {"nodeSelectorTerms": [{"matchExpressions": list(expressions)}]}
    return {"addedAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def test_added_affinity_comes_before_the_pods_own() -> None:
    plugin = NodeAffinity(enforced(one_of("zone", "a", "b")))
    pod = make_pod().selector({"zone": "b"})
    nodes = [zoned("one", "a"), zoned("two", "b"), zoned("three", "c")]
    assert reasons(plugin, pod, *nodes) == [[REASON], [], [REASON_ENFORCED]]
    assert reasons(plugin, make_pod(), *nodes) == [[], [], [REASON_ENFORCED]]


def test_added_preferences_count_beside_the_pods_own() -> None:
    terms = [weighted(10, one_of("zone", "a")), weighted(0, one_of("zone", "b"))]
    plugin = NodeAffinity({"addedAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": terms}})
    pod = make_pod().prefers(3, one_of("zone", "b"))
    assert scores(plugin, pod, zoned("a", "a"), zoned("b", "b"))[0] == [10, 3]


def test_an_added_affinity_without_terms_matches_nothing() -> None:
    required: dict[str, Any] = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
    assert reasons(NodeAffinity({"addedAffinity": required}), make_pod(), make_node()) == [[REASON_ENFORCED]]


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (one_of("zone"), "zone In []"),
        ({"key": "zone", "operator": "Within", "values": ["a"]}, "zone Within ['a']"),
        ({"key": "cores", "operator": "Gt", "values": ["many"]}, "cores Gt ['many']"),
        (one_of("no key", "a"), "no key In ['a']"),
        (one_of("-.example.com/zone", "a"), "-.example.com/zone In ['a']"),
        (one_of("/zone", "a"), "/zone In ['a']"),
        (one_of("zone", "not a value"), "zone In ['not a value']"),
    ],
)
def test_added_terms_that_can_never_match_are_refused(expression: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match="matchExpressions") as refused:
        NodeAffinity(enforced(expression))
    place = "addedAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]"
    assert str(refused.value) == f"{place}.matchExpressions[0]: {text} is not valid"


def test_arguments_may_say_what_they_are() -> None:
    kind = {"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "NodeAffinityArgs"}
    plugin = NodeAffinity(kind | enforced(one_of("zone", "a")))
    assert reasons(plugin, make_pod(), zoned("b", "b")) == [[REASON_ENFORCED]]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"addedAfinity": {}}, "addedAfinity: unknown field"),
        ({"kind": "NodeNameArgs"}, "kind: must be NodeAffinityArgs, got 'NodeNameArgs'"),
        (
            {"addedAffinity": {"required": {}}},
            "addedAffinity.required: unknown field",
        ),
        (
            {"addedAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": "1"}]}},
            "addedAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: "
            "expected `int`, got `str`",
        ),
        (
            enforced() | {"more": 1},
            "more: unknown field",
        ),
    ],
)
def test_arguments_of_other_shapes_are_refused(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"field|expected|must be") as refused:
        NodeAffinity(args)
    assert str(refused.value) == message


def test_match_fields_of_an_added_term_take_one_value() -> None:
    field = {"key": "metadata.name", "operator": "In", "values": ["a", "b"]}
    terms = [{"weight": 1, "preference": {"matchFields": [field]}}]
    with pytest.raises(ValueError, match=r"preference\.matchFields\[0\]: .* with one value"):
        NodeAffinity({"addedAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": terms}})


# ---- ImageLocality


def running(*images: str) -> PodBuilder:
    pod = make_pod()
    for image in images:
        pod.container(image=image)
    return pod


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        # On one of two nodes: half of 40 MiB is below 23 MiB, half of 300 MiB above.
        (running("small:1"), [0, 0]),
        (running("large:1"), [0, 100 * (150 - 23) // (1000 - 23)]),
        # Of two containers the threshold is twice as high.
        (running("large:1", "small:1"), [0, 100 * (150 - 23) // (2000 - 23)]),
        (running("large:1", "large:1"), [0, 100 * (300 - 23) // (2000 - 23)]),
        # An image that all nodes have counts in full.
        (running("everywhere:1"), [100 * (500 - 23) // (1000 - 23)] * 2),
        # No image makes more than 100.
        (running("huge:1"), [100, 0]),
        (make_pod().container(image="x").sidecar(image="large:1"), [0, 100 * (150 - 23) // (2000 - 23)]),
        (running("unknown"), [0, 0]),
    ],
)
def test_images_present_count_by_size_and_spread(pod: PodBuilder, expected: list[int]) -> None:
    one = make_node("one").images({"small:1": 40 * MIB, "huge:1": 9000 * MIB, "everywhere:1": 500 * MIB})
    two = make_node("two").images({"large:1": 300 * MIB, "everywhere:1": 500 * MIB})
    assert scores(ImageLocality(), pod, one, two) == (expected, expected)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("nginx", "nginx:latest"),
        ("nginx:1", "nginx:1"),
        ("example.com:5000/team/app", "example.com:5000/team/app:latest"),
        ("example.com:5000/team/app:v1", "example.com:5000/team/app:v1"),
        ("example.com/app@sha256:abc", "example.com/app@sha256:abc"),
    ],
)
def test_images_are_named_as_kubelets_report_them(image: str, name: str) -> None:
    assert running(image).info().images == (name,)


def test_all_images_of_a_pod_count() -> None:
    pod = running("b", "a:1", "b").sidecar(image="c:2")
    pod.spec(volumes=[{"name": "v", "image": {"reference": "d"}}, {"name": "w", "emptyDir": {}}])
    assert pod.info().images == ("a:1", "b:latest", "b:latest", "c:2", "d:latest")


# ---- NodeDeclaredFeatures

RESTART, USERS, OPTIONS = (
    "RestartAllContainersOnContainerExits",
    "UserNamespacesHostNetworkSupport",
    "VolumeBindMountOptions",
)


def restarting(action: str) -> dict[str, Any]:
    return {"restartPolicy": "Never", "restartPolicyRules": [{"action": action}]}


def mounting(*options: str) -> dict[str, Any]:
    return {"volumeMounts": [{"name": "v"}, {"name": "w", "bindMountOptions": list(options)}]}


@pytest.mark.parametrize(
    ("pod", "features"),
    [
        (make_pod(), ()),
        (make_pod().container(**restarting("Restart")), ()),
        (make_pod().container(**restarting("RestartAllContainers")), (RESTART,)),
        (make_pod().spec(initContainers=[restarting("RestartAllContainers")]), (RESTART,)),
        (make_pod().spec(hostNetwork=True), ()),
        (make_pod().spec(hostUsers=False), ()),
        (make_pod().spec(hostNetwork=True, hostUsers=True), ()),
        (make_pod().spec(hostNetwork=True, hostUsers=False), (USERS,)),
        (make_pod().container(**mounting()), ()),
        (make_pod().container(**mounting("noexec")), (OPTIONS,)),
        (make_pod().spec(ephemeralContainers=[mounting("noexec")]), (OPTIONS,)),
        (
            make_pod()
            .spec(hostNetwork=True, hostUsers=False)
            .container(**restarting("RestartAllContainers"), **mounting("nodev")),
            (RESTART, USERS, OPTIONS),
        ),
    ],
)
def test_features_are_inferred_from_the_spec(pod: PodBuilder, features: tuple[str, ...]) -> None:
    info: PodInfo = pod.info()
    assert info.required_features == features
    assert NodeDeclaredFeatures().applies(info) is bool(features)


def test_a_node_must_declare_every_feature() -> None:
    pod = make_pod().spec(hostNetwork=True, hostUsers=False).container(**mounting("nodev"))
    nodes = [
        make_node("all").features("Other", USERS, OPTIONS),
        make_node("one").features(OPTIONS),
        make_node("none"),
    ]
    assert reasons(NodeDeclaredFeatures(), pod, *nodes) == [[], [MISSING_FEATURE], [MISSING_FEATURE]]
