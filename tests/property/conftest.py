"""Long runs write down what they have played."""

import pytest

from tests.property.long_runs import note_report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    note_report(report)
