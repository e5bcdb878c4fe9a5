"""Long runs write down what they have played."""

import pytest

from tests.property.long_runs import HandOver, note_report


@pytest.fixture
def hand_over(request: pytest.FixtureRequest) -> HandOver:
    """`hand_over(report, part)`: what the test has done, for the report of a long run."""
    return lambda report, part: request.node.user_properties.append((report, part))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    note_report(report)
