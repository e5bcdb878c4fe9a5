"""What the API server itself has written down: who bound which pod, and who held the lease, and when.

Each replica has a user of its own, so an audit log tells them apart, whatever they say about themselves. Its
times are those of the API server, on the same machine and by the same clock as this test's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tests.integration.harness import Json

_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: Request
  users: {users}
  omitStages: [RequestReceived, ResponseStarted]
  verbs: [create, update]
  resources:
  - {{group: "", resources: [pods/binding]}}
  - {{group: coordination.k8s.io, resources: [leases]}}
- level: Metadata
  users: {users}
  omitStages: [RequestReceived, ResponseStarted]
  verbs: [list, delete]
- level: Metadata
  users: {users}
  omitStages: [RequestReceived, ResponseComplete]
  verbs: [watch]
- level: None
"""


@dataclass(frozen=True)
class Bind:
    """One that was carried out. Times are Unix time in seconds: when it was received, and answered."""

    user: str
    pod: str
    uid: str
    node: str
    received: float
    answered: float


@dataclass(frozen=True)
class LeaseWrite:
    """One that was carried out; `holder` is empty for a release."""

    user: str
    holder: str
    transitions: int
    received: float
    answered: float


class Audit:
    """`flags` make a kube-apiserver write the log; the other methods read all that is there by now."""

    def __init__(self, folder: Path, users: Sequence[str]) -> None:
        self._log = folder / "audit.log"
        policy = folder / "audit-policy.yaml"
        policy.write_text(_POLICY.format(users=json.dumps(list(users))))
        self.flags = (f"--audit-policy-file={policy}", f"--audit-log-path={self._log}")
        self.binds: list[Bind] = []
        self.leases: list[LeaseWrite] = []
        self.lists: list[tuple[float, str, str]] = []
        """When, by whom, of what; a watch that begins with all objects is a list."""
        self.deleted: set[str] = set()
        """Names of pods that a replica has deleted."""
        self._read_to = 0

    def read(self) -> None:
        """Take in what was added since."""
        with self._log.open("rb") as log:
            log.seek(self._read_to)
            complete, newline, _ = log.read().rpartition(b"\n")
        self._read_to += len(complete + newline)
        for line in complete.splitlines():
            self._note(json.loads(line))

    def leader(self) -> str:
        """The user that holds the lease; "" for nobody."""
        self.read()
        last = max(self.leases, key=lambda write: write.answered, default=None)
        return last.user if last is not None and last.holder else ""

    def first_bind_by_another(self, former: str, after: float) -> Bind | None:
        """The first bind after this time that was not the former leader's."""
        self.read()
        others = (bind for bind in self.binds if bind.user != former and bind.received > after)
        return min(others, key=lambda bind: bind.answered, default=None)

    def led_since(self, user: str) -> float:
        """When its replica had the lease for the first time, of its last term."""
        return next(term for term in reversed(tenures(self.leases)) if term.user == user).renewed[0]

    def listed_by(self, user: str, since: float, until: float) -> tuple[str, ...]:
        """What, in order."""
        return tuple(what for when, who, what in self.lists if who == user and since < when < until)

    def _note(self, event: Json) -> None:
        if event.get("responseStatus", {}).get("code") not in (200, 201):
            return
        user, what = event["user"]["username"], event["objectRef"]
        received, answered = _time(event["requestReceivedTimestamp"]), _time(event["stageTimestamp"])
        resource = what["resource"]
        if event["verb"] == "list" or "sendInitialEvents=true" in event["requestURI"]:
            what_of = f"{resource} of a namespace" if "namespace" in what else resource
            self.lists.append((received, user, what_of))
        elif event["verb"] == "watch":
            pass  # it goes on where an earlier one ended
        elif event["verb"] == "delete":
            if resource == "pods":
                self.deleted.add(what["name"])
        elif resource == "leases":
            spec = event["requestObject"]["spec"]
            holder, transitions = spec.get("holderIdentity") or "", spec.get("leaseTransitions") or 0
            self.leases.append(LeaseWrite(user, holder, transitions, received, answered))
        else:
            body = event["requestObject"]
            uid, node = body["metadata"].get("uid", ""), body["target"]["name"]
            self.binds.append(Bind(user, what["name"], uid, node, received, answered))


@dataclass(frozen=True)
class Tenure:
    """One holder's time with the lease. `renewed` are the times at which its writes were answered."""

    user: str
    holder: str
    renewed: tuple[float, ...]
    until: float
    """When the next one had it, or it was released."""


def tenures(writes: Sequence[LeaseWrite]) -> list[Tenure]:
    """In order; a process that starts anew is another holder."""
    found: list[Tenure] = []
    user, holder, renewed = "", "", list[float]()
    for write in sorted(writes, key=lambda write: write.answered):
        if write.holder != holder:
            if holder:
                found.append(Tenure(user, holder, tuple(renewed), write.answered))
            user, holder, renewed = write.user, write.holder, []
        renewed.append(write.answered)
    if holder:
        found.append(Tenure(user, holder, tuple(renewed), float("inf")))
    return found


def broken(audit: Audit, *, renew_deadline_s: float) -> list[str]:
    """What the log says against the rules: one bind for each pod, by the one that leads, while it may."""
    audit.read()
    problems = [
        f"{uid} was bound {n} times" for uid, n in Counter(b.uid for b in audit.binds).items() if n > 1
    ]
    terms = tenures(audit.leases)
    for bind in audit.binds:
        of_user = [term for term in terms if term.user == bind.user and term.renewed[0] <= bind.received]
        if not of_user:
            problems.append(f"{bind.user} bound {bind.pod} without ever having had the lease")
            continue
        term = of_user[-1]
        last = max(time for time in term.renewed if time <= bind.received)
        if bind.answered > term.until:
            problems.append(f"{bind.user} bound {bind.pod} {bind.answered - term.until:.3f} s after its term")
        elif bind.received > last + renew_deadline_s:
            problems.append(
                f"{bind.user} bound {bind.pod} {bind.received - last:.1f} s after its last renewal"
            )
    counts = [write.transitions for write in sorted(audit.leases, key=lambda write: write.answered)]
    if counts[-1] - counts[0] != len(terms) - 1:
        problems.append(f"leaseTransitions grew by {counts[-1] - counts[0]} over {len(terms)} holders")
    return problems


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
