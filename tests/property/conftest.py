"""Long runs write down what they have played."""

import pytest

from tests.property.fault_counts import RECORD, is_long, write_report


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if is_long() and len(RECORD) == 3 and exitstatus == 0:
        write_report(RECORD)
