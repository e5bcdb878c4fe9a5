"""Many urgent pods on a full cluster: `make bench-preemption` in small, with its conditions asserted."""

import pytest

from tests.bench.preemption import KUBE, WHOLEPOD, Load, Run, measure

LOAD = Load(nodes=24, urgent=60, seed=1)


@pytest.fixture(scope="module")
def kube_schedulers() -> list[Run]:
    """kube-scheduler draws lots, so it is not the same twice."""
    return [measure(KUBE, LOAD) for _ in range(3)]


def test_no_more_victims_and_no_more_broken_budgets_than_by_kube_scheduler(
    kube_schedulers: list[Run],
) -> None:
    run = measure(WHOLEPOD, LOAD)
    assert run.preemptions > 0
    assert run.wrong == ()
    assert run.total <= max(other.total for other in kube_schedulers)
    assert run.violations <= max(other.violations for other in kube_schedulers)
