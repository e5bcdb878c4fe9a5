"""What a run of the planner's property tests has compared, as the page of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

HEAD = """\
# Plans for gangs, against brute force

Made by `make faults`. Random clusters of up to 4 nodes, and gangs of up to 6 members with sizes, affinity,
anti-affinity and spreading, so small that every assignment of members to nodes can be tried in every order.
The planner, its budget unlimited, has to find a plan if and only if there is one; what it finds is checked by
the scheduler's own filters. Up to 4 members these filters and a naive model of the rules, which shares no
code with them, both say whether a plan exists, and have to agree; with more members the model does.
"""


class Compared:
    """Of one test: (members, whether a plan exists) → cases."""

    def __init__(self) -> None:
        self.cases: Counter[tuple[int, bool]] = Counter()

    def plain(self) -> dict[str, Any]:
        """As what can be handed from one process to another."""
        return {"cases": [[members, exists, times] for (members, exists), times in self.cases.items()]}


def page(parts: Sequence[dict[str, Any]]) -> list[str]:
    """The report's table, of what the tests hand over."""
    cases: Counter[tuple[int, bool]] = Counter()
    for part in parts:
        for members, exists, times in part["cases"]:
            cases[members, exists] += times
    lines = [f"{cases.total()} cases.", ""]
    lines += [
        "| members | a plan exists, and was found | none exists, none found |",
        "| ---: | ---: | ---: |",
    ]
    for members in sorted({members for members, _ in cases}):
        lines.append(f"| {members} | {cases[members, True]} | {cases[members, False]} |")
    return lines
