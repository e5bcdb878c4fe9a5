"""Faults at every step of a gang's commit on a real API server: thirty of `python -m tests.faults`."""

from pathlib import Path

import pytest

from tests.cluster.assets import asked_minor
from tests.faults.campaign import run, some_faults
from tests.faults.eyes import Point
from tests.faults.stage import Stage

pytestmark = pytest.mark.skipif(asked_minor() is not None, reason="v1beta1 is served since Kubernetes 1.37")


def test_whatever_dies_and_whenever_nothing_is_left_behind(tmp_path: Path) -> None:
    faults = some_faults(30)
    assert {fault.point for fault in faults} == {*Point}
    with Stage(tmp_path) as stage:
        broken = [f"{result.fault}: {result.broken}" for result in run(stage, faults) if result.broken]
        if broken:
            for scheduler in stage.schedulers:
                scheduler.show_log()
    assert broken == []
