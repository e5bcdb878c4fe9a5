"""What is attached where is the same whether it was kept up to date or counted anew."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from scheduler.api_objects import PersistentVolume, PersistentVolumeClaim, StorageClass, VolumeAttachment
from scheduler.core.mix import ShapeMix
from scheduler.core.pod_info import PodInfo
from scheduler.core.state import ClusterState
from scheduler.core.volumes.attached import AttachedVolumes
from tests.builders import make_node
from tests.unit.storage import attachment, claim, csi, storage_class, volume, with_claims

NODES = ("n0", "n1", "n2")
DRIVERS = ("d", "e", "ebs.csi.aws.com")
VOLUMES = [(driver, handle) for driver in DRIVERS for handle in ("h0", "h1")]
SOURCES: list[dict[str, Any]] = [
    csi("d", "h0"),
    csi("d", "h1"),
    csi("e", "h0"),
    {"awsElasticBlockStore": {"volumeID": "h0"}},
    {"hostPath": {"path": "/"}},
]


def pod(number: int, node: str, used: list[int], inline: bool) -> PodInfo:
    sources = {"awsElasticBlockStore": {"volumeID": "h1"}} if inline else {}
    return with_claims(f"p{number}", *(f"c{i}" for i in used), **sources).uid(f"u{number}").on(node).info()


nodes = st.sampled_from([*NODES, "unknown"])
numbers = st.integers(0, 3)
items = st.one_of(
    st.builds(
        lambda i, bound, owner: claim(f"c{i}", volume=f"v{bound}" if bound else "", owner=owner),
        numbers,
        numbers,
        st.sampled_from(["", "u0"]),
    ),
    st.builds(lambda i, source: volume(f"v{i}", **SOURCES[source]), numbers, st.integers(0, 4)),
    st.builds(lambda p: storage_class(provisioner=p), st.sampled_from(["d", "kubernetes.io/aws-ebs", "e"])),
    st.builds(
        lambda i, node, v, driver: attachment(f"va{i}", node, f"v{v}", driver),
        numbers,
        nodes,
        numbers,
        st.sampled_from(DRIVERS),
    ),
)
steps = st.one_of(
    st.tuples(st.just("pod"), st.builds(pod, numbers, nodes, st.lists(numbers, max_size=3), st.booleans())),
    st.tuples(st.just("no pod"), numbers.map("u{}".format)),
    st.tuples(st.just("node"), st.sampled_from(NODES)),
    st.tuples(st.just("many nodes"), st.just(70)),
    st.tuples(st.just("no node"), st.sampled_from(NODES)),
    st.tuples(st.just("object"), items),
    st.tuples(st.just("no object"), items),
    st.tuples(st.just("ask"), st.none()),
)


def apply(state: ClusterState, step: tuple[str, Any]) -> None:
    match step:
        case "pod", info if info.uid not in state.pods:
            state.confirm(info)
        case "no pod", uid:
            state.remove_pod(uid)
        case "node", name:
            state.upsert_node(make_node(name).obj())
        case "many nodes", count:
            for i in range(count):
                state.upsert_node(make_node(f"m{i}").obj())
        case "no node", name:
            state.remove_node(name)
        case "object", item:
            state.nodes.cluster.upsert(item)
        case "no object", item:
            state.nodes.cluster.remove(type(item), item.metadata)
        case "ask", _:
            answers(state, state.nodes.volumes.attached)


def answers(state: ClusterState, attached: AttachedVolumes) -> list[Any]:
    counts = [attached.count(driver)[: len(state.nodes)].tolist() for driver in DRIVERS]
    return [counts, [dict(attached.nodes_with_pods(volume)) for volume in VOLUMES]]


def counted_anew(state: ClusterState) -> AttachedVolumes:
    table = state.nodes
    attached = AttachedVolumes(table.row_of, 256, table.cluster)
    for name in table.names:
        for placed in state.pods_on(name):
            attached.add(name, placed.info.volumes)
    for item in table.cluster.all(VolumeAttachment):
        attached._attachment_changed(None, item)
    return attached


@given(st.lists(steps, max_size=40))
def test_counts_are_what_counting_anew_gives(taken: list[tuple[str, Any]]) -> None:
    state = ClusterState(ShapeMix().frozen)
    answers(state, state.nodes.volumes.attached)
    for step in taken:
        apply(state, step)
    assert answers(state, state.nodes.volumes.attached) == answers(state, counted_anew(state))


def test_nothing_is_kept_of_what_is_gone() -> None:
    state = ClusterState(ShapeMix().frozen)
    state.upsert_node(make_node("n0").obj())
    made = [claim("c0", volume="v0"), volume("v0", **csi("d", "h0")), attachment("va", "n0", "v0", "d")]
    for item in [*made, storage_class()]:
        state.nodes.cluster.upsert(item)
    state.confirm(pod(0, "n0", [0, 1], inline=True))
    assert answers(state, state.nodes.volumes.attached)[0] == [[1], [0], [1]]
    state.remove_pod("u0")
    for kind in (VolumeAttachment, PersistentVolume, PersistentVolumeClaim, StorageClass):
        state.nodes.cluster.replace(kind, [])
    attached = state.nodes.volumes.attached
    assert answers(state, attached)[0] == [[0], [0], [0]]
    for kept in ("_users", "_disks", "_holders", "_readers", "_stale", "_on_node", "_with_pods"):
        assert not getattr(attached, kept), kept
