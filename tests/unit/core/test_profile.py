"""Keys: pods that differ in nothing that plugins read are one kind, and no others are."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

from scheduler.core.plugin import FilterPlugin, ScorePlugin, passes, rejects
from scheduler.core.profile import key_reader
from tests.builders import PodBuilder, make_pod, make_profile


class Reads(FilterPlugin):
    name = "Reads"
    reads: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *fields: str) -> None:
        self.reads = fields  # type: ignore[misc]


def same(one: PodBuilder, other: PodBuilder, *fields: str) -> bool:
    read = key_reader([Reads(*fields)])
    return read(one.info()) == read(other.info())


@pytest.mark.parametrize(
    ("one", "other", "fields", "equal"),
    [
        (make_pod("a"), make_pod("b"), (), True),
        (make_pod("a").priority(1), make_pod("b"), ("requests",), True),
        (
            make_pod().req(cpu="1", memory="1Gi"),
            make_pod().req(memory="1024Mi", cpu="1000m"),
            ("requests",),
            True,
        ),
        (make_pod().req(cpu="1"), make_pod().req(cpu="2"), ("requests",), False),
        (
            make_pod().selector({"a": "1", "b": "2"}),
            make_pod().selector({"b": "2", "a": "1"}),
            ("node_selector",),
            True,
        ),
        (make_pod().selector({"a": "1"}), make_pod().selector({"a": "2"}), ("node_selector",), False),
        (make_pod().pinned_to("a"), make_pod().pinned_to("b"), ("required_node_affinity",), False),
        (make_pod().pinned_to("a"), make_pod(), ("required_node_affinity",), False),
        (make_pod().toleration("a"), make_pod().toleration("a", operator="Exists"), ("tolerations",), False),
        (make_pod().host_port(80), make_pod().host_port(80, protocol="UDP"), ("host_ports",), False),
        # Values of neighbouring fields must not run into each other.
        (make_pod().labels(a="b"), make_pod().selector({"a": "b"}), ("labels", "node_selector"), False),
        (make_pod("a"), make_pod("b"), ("uid",), False),
    ],
)
def test_keys(one: PodBuilder, other: PodBuilder, fields: tuple[str, ...], equal: bool) -> None:
    assert same(one, other, *fields) is equal


@pytest.mark.parametrize("preset", ["kube", "memory-fit"])
@pytest.mark.parametrize(
    ("other", "equal"),
    [
        (make_pod("other").labels(job="1").owner("Job").priority(9).created("2026-01-01T00:00:00Z"), True),
        (make_pod("other").req(cpu="1"), False),
        (make_pod("other").host_port(80), False),
        (make_pod("other").toleration("a"), False),
        (make_pod("other").selector({"a": "b"}), False),
        (make_pod("other").pinned_to("n"), False),
        (make_pod("other").spec(resourceClaims=[{"name": "c"}]), False),
    ],
)
def test_kinds_of_the_presets(preset: str, other: PodBuilder, equal: bool) -> None:
    """A Job's labels, its names and its age must not make each of its pods a kind of its own."""
    profile = make_profile(preset=preset)
    plugins: list[FilterPlugin | ScorePlugin] = [*profile.filters, *(s.plugin for s in profile.scores)]
    read = key_reader(plugins)
    assert (read(make_pod().info()) == read(other.info())) is equal


def test_short_ways_to_answer() -> None:
    assert passes(3).reason_bits.tolist() == [0, 0, 0]
    answer = rejects(np.array([True, False]), unresolvable=True)
    assert answer.reason_bits.tolist() == [1, 0]
    assert answer.reason_bits.dtype == np.dtype(np.uint64)
    assert answer.unresolvable.tolist() == [True, True]
