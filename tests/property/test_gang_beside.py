"""Optimistic gangs that are planned beside others' decisions, with anything between two of their steps.

The machine of `test_gang_model`, with a clock that goes on whenever it is read, so that a slice of
planning is one or two steps; and decisions are asked for one at a time.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from tests.builders import BusyClock, make_engine
from tests.property.test_gang_model import GangMachine


class BesideMachine(GangMachine):
    strategy = "optimistic"

    def __init__(self) -> None:
        super().__init__()
        self.clock = BusyClock()
        self.engine = make_engine(self.clock)

    @rule(times=st.integers(1, 6))
    def decide_a_little(self, times: int) -> None:
        self.decide_all(at_most=times)

    @invariant()
    def everybody_is_where_he_can_go_on_from(self) -> None:
        gangs = self.engine.gangs
        if not gangs.planning:
            super().everybody_is_where_he_can_go_on_from()
        elif (
            not gangs.planning_alone and not gangs.decided
        ):  # a plan takes nobody's room before it is validated
            for placed in self.engine.state.pods.values():
                assert not placed.assumed or gangs.is_trying(placed.info.uid)

    @invariant()
    def nobody_is_thought_away(self) -> None:
        if not self.engine.gangs.planning_alone:  # what if others left is asked in steps as well
            super().nobody_is_thought_away()


def test_gangs_planned_beside_others() -> None:
    run_state_machine_as_test(BesideMachine, settings=settings(stateful_step_count=60))
