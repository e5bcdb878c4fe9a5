"""Small cases of each rule, worked out by hand; tests/parity compares thousands with kube-scheduler."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from scheduler.api import Pod
from scheduler.core.requests import nonzero_requests, pod_requests, pod_requests_on_node, scored_requests
from scheduler.quantity import MAX_VALUE, QuantityError

Json = dict[str, Any]
MIB = 1 << 20


def container(name: str = "c", **requests: str) -> Json:
    return {"name": name, "resources": {"requests": requests}}


def sidecar(name: str, **requests: str) -> Json:
    return {**container(name, **requests), "restartPolicy": "Always"}


def pod(*containers: Json, status: Json | None = None, **spec: Any) -> Pod:
    raw = {"spec": {"containers": list(containers), **spec}, "status": status or {}}
    return msgspec.convert(raw, Pod)


def pending(reason: str) -> Json:
    return {"type": "PodResizePending", "status": "True", "reason": reason}


def test_containers_add_up() -> None:
    both = pod(container("a", cpu="100m", memory="1Mi"), container("b", cpu="1", **{"example.com/gpu": "2"}))
    assert pod_requests(both) == {"cpu": 1100, "memory": MIB, "example.com/gpu": 2}


def test_a_pod_without_requests_asks_for_nothing() -> None:
    assert pod_requests(pod({"name": "a"}, container("b"))) == {}
    assert pod_requests(pod()) == {}


def test_zeros_are_left_out() -> None:
    assert pod_requests(pod(container(cpu="0", memory="1", **{"example.com/gpu": "0"}))) == {"memory": 1}


def test_amounts_are_added_before_they_are_rounded() -> None:
    halves = pod(container("a", cpu="500u", memory="0.5"), container("b", cpu="500u", memory="0.5"))
    assert pod_requests(halves) == {"cpu": 1, "memory": 1}
    thirds = pod(container("a", memory="0.4"), container("b", memory="0.4"), container("c", memory="0.4"))
    assert pod_requests(thirds) == {"memory": 2}


def test_an_init_container_counts_where_it_needs_more_than_all_containers_together() -> None:
    init = [container("i", cpu="300m", memory="1Mi")]
    assert pod_requests(pod(container("a", cpu="200m"), container("b", cpu="50m"), initContainers=init)) == {
        "cpu": 300,
        "memory": MIB,
    }


def test_init_containers_run_one_after_another() -> None:
    init = [container("i", cpu="300m"), container("j", cpu="400m")]
    assert pod_requests(pod(container(cpu="100m"), initContainers=init)) == {"cpu": 400}


def test_sidecars_run_beside_containers_and_later_init_containers() -> None:
    init = [container("early", cpu="500m"), sidecar("s", cpu="200m"), container("late", cpu="450m")]
    # early 500, late 450 + 200, running 100 + 200
    assert pod_requests(pod(container(cpu="100m"), initContainers=init)) == {"cpu": 650}
    # running 600 + 200
    assert pod_requests(pod(container(cpu="600m"), initContainers=init)) == {"cpu": 800}


def test_overhead_comes_on_top() -> None:
    assert pod_requests(pod(container(cpu="1"), overhead={"cpu": "250m", "memory": "1Mi"})) == {
        "cpu": 1250,
        "memory": MIB,
    }


def test_pod_level_requests_replace_what_containers_add_up_to() -> None:
    level = {"requests": {"cpu": "3", "hugepages-2Mi": "4Mi"}, "limits": {"memory": "1Gi"}}
    asked = pod(container(cpu="1", memory="1Mi"), resources=level, overhead={"cpu": "1"})
    assert pod_requests(asked) == {"cpu": 4000, "memory": MIB, "hugepages-2Mi": 4 * MIB}


def test_pod_level_knows_cpu_memory_and_huge_pages_only() -> None:
    level = {"requests": {"ephemeral-storage": "5Gi"}}
    assert pod_requests(pod(container(cpu="1"), resources=level)) == {"cpu": 1000}


def test_before_a_pod_has_a_node_its_status_does_not_count() -> None:
    status = {"containerStatuses": [{"name": "c", "allocatedResources": {"cpu": "8"}}]}
    asked = pod(container(cpu="1"), status=status)
    assert pod_requests(asked) == {"cpu": 1000}
    assert pod_requests_on_node(asked) == {"cpu": 8000}


@pytest.mark.parametrize(
    ("spec", "allocated", "actual", "most"),
    [("1", "2", "3", 3000), ("1", "3", "2", 3000), ("3", "1", "2", 3000), ("2", "2", "2", 2000)],
)
def test_on_a_node_the_most_of_spec_allocated_and_actual_counts(
    spec: str, allocated: str, actual: str, most: int
) -> None:
    state = {
        "name": "c",
        "allocatedResources": {"cpu": allocated},
        "resources": {"requests": {"cpu": actual}},
    }
    assert pod_requests_on_node(pod(container(cpu=spec), status={"containerStatuses": [state]})) == {
        "cpu": most
    }


def test_a_status_of_another_container_does_not_count() -> None:
    state = {"name": "other", "allocatedResources": {"cpu": "8"}}
    assert pod_requests_on_node(pod(container(cpu="1"), status={"containerStatuses": [state]})) == {
        "cpu": 1000
    }


def test_an_infeasible_resize_leaves_what_is_allocated() -> None:
    state = {"name": "c", "allocatedResources": {"cpu": "1"}}
    status = {"containerStatuses": [state], "conditions": [pending("Infeasible")]}
    assert pod_requests_on_node(pod(container(cpu="4"), status=status)) == {"cpu": 1000}


def test_an_infeasible_resize_of_which_nothing_is_known_takes_nothing() -> None:
    assert pod_requests_on_node(pod(container(cpu="4"), status={"conditions": [pending("Infeasible")]})) == {}


def test_a_deferred_resize_is_still_wanted() -> None:
    state = {"name": "c", "allocatedResources": {"cpu": "1"}}
    status = {"containerStatuses": [state], "conditions": [pending("Deferred")]}
    assert pod_requests_on_node(pod(container(cpu="4"), status=status)) == {"cpu": 4000}


def test_only_the_first_resize_condition_counts() -> None:
    status = {"conditions": [{"type": "Ready"}, pending("Deferred"), pending("Infeasible")]}
    assert pod_requests_on_node(pod(container(cpu="4"), status=status)) == {"cpu": 4000}


def test_sidecar_statuses_count_as_sidecars() -> None:
    state = {"name": "s", "allocatedResources": {"cpu": "2"}}
    asked = pod(
        container(cpu="1"),
        initContainers=[sidecar("s", cpu="500m")],
        status={"initContainerStatuses": [state]},
    )
    assert pod_requests_on_node(asked) == {"cpu": 3000}


def test_pod_level_status_stands_for_all_containers() -> None:
    state = {"name": "c", "allocatedResources": {"cpu": "8"}}
    status = {
        "containerStatuses": [state],
        "allocatedResources": {"cpu": "2"},
        "resources": {"requests": {"cpu": "3"}},
    }
    assert pod_requests_on_node(pod(container(cpu="1"), status=status)) == {"cpu": 3000}
    # One of the two alone is not enough.
    del status["allocatedResources"]
    assert pod_requests_on_node(pod(container(cpu="1"), status=status)) == {"cpu": 8000}


def test_a_pod_level_resize_counts_the_most_as_well() -> None:
    level = {"requests": {"cpu": "2"}}
    status = {"resources": {"requests": {"cpu": "5"}}, "allocatedResources": {"cpu": "4"}}
    assert pod_requests_on_node(pod(container(cpu="1"), resources=level, status=status)) == {"cpu": 5000}
    refused = {**status, "conditions": [pending("Infeasible")]}
    bigger = {"requests": {"cpu": "9"}}
    assert pod_requests_on_node(pod(container(cpu="1"), resources=bigger, status=refused)) == {"cpu": 5000}


def test_defaults_are_per_container() -> None:
    asked = pod(container("a", cpu="1"), container("b", memory="1Mi"), {"name": "c"})
    assert nonzero_requests(asked) == (1000 + 100 + 100, (200 + 1 + 200) * MIB)
    assert scored_requests(asked) == dict(zip(("cpu", "memory"), nonzero_requests(asked), strict=True))


def test_an_explicit_zero_is_not_replaced() -> None:
    assert nonzero_requests(pod(container(cpu="0", memory="0"))) == (0, 0)


def test_defaults_apply_to_sidecars_and_init_containers() -> None:
    asked = pod(container(cpu="1", memory="1Mi"), initContainers=[sidecar("s"), {"name": "i"}])
    # running 1000 + 100; the init container beside the sidecar 100 + 100, 400 MiB
    assert nonzero_requests(asked) == (1100, 400 * MIB)


def test_with_pod_level_requests_a_default_stands_for_what_nobody_names() -> None:
    level = {"requests": {"memory": "1Mi"}}
    assert nonzero_requests(pod(container("a", cpu="1"), {"name": "b"}, resources=level)) == (1000, MIB)
    assert nonzero_requests(pod({"name": "a"}, {"name": "b"}, resources=level)) == (200, MIB)
    overhead = pod({"name": "a"}, resources=level, overhead={"cpu": "50m"})
    assert nonzero_requests(overhead) == (50, MIB)


def test_scores_do_not_see_pod_level_requests() -> None:
    level = {"requests": {"cpu": "8", "memory": "8Gi"}}
    gpu = container("a", cpu="1") | {"resources": {"requests": {"cpu": "1", "example.com/gpu": "1"}}}
    asked = pod(gpu, {"name": "b"}, resources=level, overhead={"cpu": "50m"})
    assert scored_requests(asked) == {"cpu": 1150, "memory": 400 * MIB, "example.com/gpu": 1}


def test_absurd_requests_stay_within_the_bound() -> None:
    absurd = pod(container("a", memory="8Ei", cpu="1e99"), container("b", memory="8Ei"))
    assert pod_requests(absurd) == {"memory": MAX_VALUE, "cpu": MAX_VALUE}


def test_what_is_no_quantity_is_named() -> None:
    with pytest.raises(QuantityError, match="lots"):
        pod_requests(pod(container(memory="lots")))
