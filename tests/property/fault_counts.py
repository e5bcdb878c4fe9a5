"""What a run of the gangs' property test has played: for each part of it, and as the page of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.property.gang_faults import POINTS, WAYS, Fault

STRATEGIES = ("atomic", "hoarding", "optimistic")

HEAD = """\
# Gangs under faults, in virtual time

Made by `make faults`. Each history is one run of the real scheduler (engine, strategies, loop, journal,
committer, writer) against a model of the API server: gangs and single pods arrive, members are lost, fail or
finish, somebody else binds pods, the watch is late and has gaps, and up to six faults strike at named steps:
the process dies or freezes, the API server goes down, an answer or a request is lost, a request is executed
late. After each, when there is room for all: no gang is bound in part, and none was for longer than its
deadline and the time that the faults took; no node was given more than it has; every gang that can be bound
is; no journal entry, no hold and no assumed pod is left.
"""


class Counts:
    """Of one strategy, or of a part of its histories.

    `in_part`: by how many faults struck, how many histories, and the longest that a gang was bound in part.
    """

    def __init__(self) -> None:
        self.histories = 0
        self.played: Counter[tuple[str, str]] = Counter()
        self.in_part: dict[int, tuple[int, float]] = {}

    def add(self, hit: Sequence[Fault], longest_partial_s: float) -> None:
        """After a history that went well."""
        self.histories += 1
        self.played.update((fault.point, fault.way) for fault in hit)
        self._note_in_part(len(hit), 1, longest_partial_s)

    def _note_in_part(self, faults: int, histories: int, longest_s: float) -> None:
        before, longest_before_s = self.in_part.get(faults, (0, 0.0))
        self.in_part[faults] = before + histories, max(longest_before_s, longest_s)

    def plain(self) -> dict[str, Any]:
        """As what can be handed from one process to another."""
        return {
            "histories": self.histories,
            "played": [[*aim, times] for aim, times in self.played.items()],
            "in_part": [[faults, *noted] for faults, noted in self.in_part.items()],
        }

    def take(self, plain: dict[str, Any]) -> None:
        """Adds what `plain` gave."""
        self.histories += plain["histories"]
        for point, way, times in plain["played"]:
            self.played[point, way] += times
        for noted in plain["in_part"]:
            self._note_in_part(*noted)


def page(parts: Sequence[dict[str, Any]]) -> list[str]:
    """The report's tables, of what the parts of a run hand over: {"strategy": …, **Counts.plain()}."""
    counts = {strategy: Counts() for strategy in STRATEGIES}
    for part in parts:
        counts[part["strategy"]].take(part)
    lines = ["| strategy | histories | faults | steps struck |", "| --- | ---: | ---: | ---: |"]
    for strategy, of in counts.items():
        struck = sum(times > 0 for times in of.played.values())
        every = len(POINTS) * len(WAYS)
        lines.append(f"| {strategy} | {of.histories} | {of.played.total()} | {struck} of {every} |")
    lines += ["", "*Steps struck*: each step in each way counts for one.", *_in_part(counts)]
    for strategy, of in counts.items():
        lines += ["", f"Faults by step and way, `{strategy}`:", ""]
        lines += ["| step | " + " | ".join(WAYS) + " |", "| --- |" + " ---: |" * len(WAYS)]
        for point in POINTS:
            lines.append(f"| {point} | {' | '.join(str(of.played[point, way]) for way in WAYS)} |")
    return lines


def _in_part(counts: dict[str, Counts]) -> list[str]:
    lines = [
        "",
        "The longest that a gang which had never been complete was bound in part, by how many faults struck",
        "in the history. The deadline is 20 s; while the API server is away, or nobody leads, nobody can act",
        "on it. A history fails beyond 25 s and, for each fault, 110 s (an election, and each repetition",
        "that a lost answer can cost).",
        "",
        "| faults | " + " | ".join(f"{strategy}: histories | longest" for strategy in counts) + " |",
        "| ---: |" + " ---: | ---: |" * len(counts),
    ]
    for faults in sorted({faults for of in counts.values() for faults in of.in_part}):
        cells = [of.in_part.get(faults, (0, 0.0)) for of in counts.values()]
        told = " | ".join(f"{histories} | {longest_s:.1f} s" for histories, longest_s in cells)
        lines.append(f"| {faults} | {told} |")
    return lines
