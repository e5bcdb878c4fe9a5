"""Volumes matched over all nodes at once are those that a plain search finds on each node by itself."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from scheduler.api_objects import PersistentVolume
from scheduler.core.mix import ShapeMix
from scheduler.core.state import ClusterState
from scheduler.core.volumes.assume import assume_plan
from scheduler.core.volumes.serve import serve
from scheduler.plugins.volume_binding import VolumeBinding
from tests.builders import make_node
from tests.property.naive_volumes import matches
from tests.unit.storage import ZONE, claim, claim_ref, storage_class, volume, with_claims

NODES = ("n0", "n1", "n2", "n3")
HOSTNAME = "kubernetes.io/hostname"
numbers = st.integers(0, 7)


def made_volume(number: int, larger: bool, where: str, reserved: str) -> PersistentVolume:
    """No two are of one size."""
    fields: dict[str, Any] = {"claimRef": claim_ref(reserved)} if reserved else {}
    if where.startswith("n"):
        fields["node"] = where
    elif where:
        fields["zone"] = where
    return volume(f"v{number}", size=f"{number + 1 + 8 * larger}Gi", **fields)


steps = st.one_of(
    st.tuples(
        st.just("volume"),
        st.builds(
            made_volume,
            numbers,
            st.booleans(),
            st.sampled_from(["", "a", "b", *NODES]),
            st.sampled_from(["", "", "", "c0", "c1", "other"]),
        ),
    ),
    st.tuples(st.just("no volume"), numbers.map("v{}".format)),
    st.tuples(st.just("node"), st.tuples(st.sampled_from(NODES), st.sampled_from(["", "a", "b"]))),
    st.tuples(st.just("no node"), st.sampled_from(NODES)),
    st.tuples(st.just("ask"), st.none()),
    st.tuples(st.just("assume"), st.sampled_from(NODES)),
    st.tuples(st.just("restore"), st.none()),
)
POD = with_claims("p", "c0", "c1", "c2").info()
CLAIMS = [claim("c0", size="2Gi"), claim("c1", size="6Gi"), claim("c2", size="3Gi")]
OTHER = with_claims("o", "other").info()


def apply(state: ClusterState, step: tuple[str, Any]) -> None:
    cluster = state.nodes.cluster
    match step:
        case "volume", item:
            cluster.upsert(item)
        case "no volume", name:
            found = cluster.observed(PersistentVolume, name)
            if found is not None:
                cluster.remove(PersistentVolume, found.metadata)
        case "node", (name, zone):
            labels = {HOSTNAME: name} | ({ZONE: zone} if zone else {})
            state.upsert_node(make_node(name).labels(labels).obj())
        case "no node", name:
            state.remove_node(name)
        case "ask", _:
            serve(POD.volumes.claims, state.nodes.view())
        case "assume", name if name in state.nodes.row_of:
            nodes = state.nodes.view()
            plan = VolumeBinding().plan(OTHER, nodes, state.nodes.row_of[name])
            if plan is not None:
                assume_plan(plan, cluster, owner="o")
        case "restore", _:
            cluster.restore("o")


@given(st.lists(steps, max_size=30))
def test_each_claim_gets_the_volume_that_a_plain_search_finds(taken: list[tuple[str, Any]]) -> None:
    state = ClusterState(ShapeMix().frozen)
    for item in (*CLAIMS, claim("other", size="1Gi"), storage_class()):
        state.nodes.cluster.upsert(item)
    for step in taken:
        apply(state, step)
    nodes = state.nodes.view()
    service = serve(POD.volumes.claims, nodes)
    volumes = sorted(state.nodes.cluster.all(PersistentVolume), key=lambda v: v.metadata.name)
    for row, name in enumerate(nodes.names):
        found = {
            match.claim.metadata.name: match.volumes[match.choice[row]].name
            for match in service.matches
            if match.choice[row] >= 0
        }
        labels = state.nodes.objects[row].metadata.labels or {}
        assert found == matches(CLAIMS, volumes, labels), name
        assert bool(service.bits[row]) is (len(found) < len(CLAIMS))
