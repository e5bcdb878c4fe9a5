"""A snapshot decides as the state would that it was taken of, whatever has happened since the one before,
and wherever taking one was broken off."""

from __future__ import annotations

from itertools import islice
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.core import shadow
from scheduler.core.cycle import Cycle
from scheduler.core.shadow import Shadow
from tests.property.test_cycle_cache import PROFILES, WAITING, History, changes, names, nodes

steps = st.lists(
    st.one_of(
        changes,
        st.tuples(st.just("nominate"), st.tuples(st.sampled_from(WAITING), names)),
        st.tuples(st.just("catch up"), st.integers(0, 12)),
        st.tuples(st.just("decide"), st.lists(st.sampled_from(WAITING), max_size=3)),
    ),
    max_size=30,
)


@pytest.mark.parametrize("profile", PROFILES)
@settings(max_examples=settings().max_examples // 4)
@given(at_once=st.sampled_from([1, 2, 64]), start=st.lists(nodes(), max_size=8), steps=steps)
def test_a_snapshot_decides_like_its_state(
    profile: str, at_once: int, start: list[Any], steps: list[tuple[str, Any]]
) -> None:
    history = History()
    live = Cycle(PROFILES[profile](), history.state.nodes, history.state.nominations)
    with mock.patch.object(shadow, "_AT_ONCE", at_once):
        kept = Shadow(history.state, {"wholepod": live})
        for node in start:
            history.apply(("node", node))
        for what, how in steps:
            if what == "catch up":
                catching_up = kept.catch_up()
                list(islice(catching_up, how))
                catching_up.close()
            elif what == "decide":  # caches of both follow what happens
                for pod in how:
                    live.place(pod)
                    kept.cycles["wholepod"].place(pod)
            elif what == "nominate":
                history.state.nominations.nominate(*how)
            else:
                history.apply((what, how))
        for _ in kept.catch_up():
            pass
    assert kept.generation == history.state.nodes.generation
    assert kept.state.nodes.row_of.keys() == history.state.nodes.row_of.keys()
    for name in kept.state.nodes.names:
        there = {placed.info.uid for placed in history.state.pods_on(name)}
        assert {placed.info.uid for placed in kept.state.pods_on(name)} == there
    for pod in WAITING:
        assert kept.cycles["wholepod"].place(pod) == live.place(pod)
