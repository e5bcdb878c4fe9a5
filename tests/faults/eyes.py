"""Tells from requests and answers alone which step of a commit a scheduler has just come to.

So no code of the scheduler has to know of fault points. What is seen is what the API server has been asked
and has answered, of two processes together.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

from tests.integration.harness import Json

LABEL = "faults"
"""Of pods: what a test has them for."""
VICTIM = "victim"


class Point(Enum):
    """The named steps, in the order of a commit."""

    PLANNED = "PLANNED"
    INTENT_SENT = "INTENT_SENT"
    INTENT_DURABLE = "INTENT_DURABLE"
    BIND_FIRST = "BIND_FIRST"
    BIND_ANSWER_LOST = "BIND_ANSWER_LOST"
    BIND_QUORUM_LESS_1 = "BIND_QUORUM_LESS_1"
    BIND_REFUSED = "BIND_REFUSED"
    QUORUM = "QUORUM"
    CONDITION_WRITTEN = "CONDITION_WRITTEN"
    INTENT_REMOVED = "INTENT_REMOVED"
    COMP_RECORDED = "COMP_RECORDED"
    COMP_PARTIAL = "COMP_PARTIAL"
    COMP_DONE = "COMP_DONE"
    LEASE_TAKEN = "LEASE_TAKEN"
    EPOCH_BUMPED = "EPOCH_BUMPED"
    FENCED = "FENCED"
    VICTIMS_PARTIAL = "VICTIMS_PARTIAL"


@dataclass(frozen=True)
class Request:
    """What a scheduler asks for. `door` is the number of the process."""

    door: int
    method: str
    path: str
    body: bytes

    @property
    def parts(self) -> list[str]:
        return self.path.strip("/").split("/")

    @property
    def document(self) -> Json:
        found: Json = json.loads(self.body)
        return found


@dataclass
class Transaction:
    """A journal entry, and what came of it."""

    min_count: int
    state: str
    asked: int = 0
    bound: set[str] = field(default_factory=set)
    """Paths of pods."""
    first_bound_at: float | None = None


class Eyes:
    """Called in one thread. `passed` counts points; `longest_partial_s` is how long any gang was bound in
    part, from its first bind to the one that made it complete or to the deletion of the last member."""

    def __init__(self) -> None:
        self.passed: Counter[Point] = Counter()
        self.longest_partial_s = 0.0
        self.holder = ""
        self._epoch = ""
        self._transactions: dict[str, Transaction] = {}

    def begin(self) -> None:
        """Count anew."""
        self.passed.clear()
        self.longest_partial_s = 0.0

    def before(self, request: Request) -> list[Point]:
        """The points that are passed with this request."""
        points = []
        if _is_journal(request):
            if any(txn not in self._transactions for txn in _entries(request.document)):
                points.append(Point.PLANNED)
        elif _is_bind(request):
            transaction = self._of_bind(request)
            if transaction is not None:
                if not transaction.asked:
                    points.append(Point.INTENT_DURABLE)
                transaction.asked += 1
        self.passed.update(points)
        return points

    def after(self, request: Request, status: int) -> list[Point]:
        """The points that are passed now that it was answered so."""
        points = self._after(request, status)
        self.passed.update(points)
        return points

    def _after(self, request: Request, status: int) -> list[Point]:
        done = status in (200, 201)
        if _is_bind(request):
            return self._bound(request) if done else [Point.BIND_REFUSED] if status in (403, 422) else []
        if not done:
            return []
        if _is_journal(request):
            return self._written(request.document)
        if request.method in ("PUT", "POST") and "leases" in request.parts:
            holder = request.document["spec"].get("holderIdentity") or ""
            before, self.holder = self.holder, holder
            return [Point.LEASE_TAKEN] if holder and holder != before else []
        if request.method == "PATCH" and "podgroups" in request.parts:
            conditions = request.document.get("status", {}).get("conditions", ())
            written = any(
                (c["type"], c["status"]) == ("PodGroupInitiallyScheduled", "True") for c in conditions
            )
            return [Point.CONDITION_WRITTEN] if written else []
        if request.method == "DELETE" and "pods" in request.parts:
            return self._deleted(request.path)
        return []

    def _bound(self, request: Request) -> list[Point]:
        transaction = self._of_bind(request)
        if transaction is None:
            return []
        if transaction.first_bound_at is None:
            transaction.first_bound_at = time.monotonic()
        transaction.bound.add(request.path.removesuffix("/binding"))
        count = len(transaction.bound)
        points = {1: [Point.BIND_FIRST], 2: [Point.BIND_ANSWER_LOST]}.get(count, [])
        if count == transaction.min_count - 1:
            points = [*points, Point.BIND_QUORUM_LESS_1]
        if count == transaction.min_count:
            self._no_longer_partial(transaction)
            points = [*points, Point.QUORUM]
        return points

    def _written(self, document: Json) -> list[Point]:
        points, before = [], self._transactions
        epoch, entries = document["data"].get("epoch", ""), _entries(document)
        if self._epoch and epoch != self._epoch:
            points.append(Point.EPOCH_BUMPED)
        self._epoch = epoch
        for txn, entry in entries.items():
            if txn not in before:
                points.append(Point.INTENT_SENT)
            elif before[txn].state != entry["state"]:
                points.append(Point.COMP_RECORDED)
        if any(txn not in entries and t.state == "binding" for txn, t in before.items()):
            points.append(Point.INTENT_REMOVED)
        self._transactions = {
            txn: before.get(txn) or Transaction(entry["minCount"], entry["state"])
            for txn, entry in entries.items()
        }
        for txn, entry in entries.items():
            self._transactions[txn].state = entry["state"]
        return points

    def _deleted(self, path: str) -> list[Point]:
        for transaction in self._transactions.values():
            if path in transaction.bound:
                transaction.bound.discard(path)
                if transaction.bound:
                    return [Point.COMP_PARTIAL]
                self._no_longer_partial(transaction)
                return [Point.COMP_DONE]
        return [Point.VICTIMS_PARTIAL] if VICTIM in path.rpartition("/")[2] else []

    def _no_longer_partial(self, transaction: Transaction) -> None:
        if transaction.first_bound_at is not None:
            seconds = time.monotonic() - transaction.first_bound_at
            self.longest_partial_s = max(self.longest_partial_s, seconds)

    def _of_bind(self, request: Request) -> Transaction | None:
        annotations = request.document["metadata"].get("annotations") or {}
        return self._transactions.get(annotations.get("wholepod.io/txn", ""))


def _is_bind(request: Request) -> bool:
    return request.method == "POST" and request.path.endswith("/binding")


def _is_journal(request: Request) -> bool:
    return request.method in ("PUT", "POST") and "configmaps" in request.parts


def _entries(document: Json) -> dict[str, Json]:
    data = document.get("data") or {}
    return {
        key.removeprefix("gang."): json.loads(text) for key, text in data.items() if key.startswith("gang.")
    }
