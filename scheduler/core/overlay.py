"""What nominated pods change: nodes that would reject a pod if the pods nominated there had come.

A node must fit a pod twice over: with the pods of its priority or higher that are nominated there, for
it has to make way for them, and without them, since they may go elsewhere after all (its affinity must
not count on them). The first rejection is the one that is told.
Source: RunFilterPluginsWithNominatedPods (pkg/scheduler/framework/runtime/framework.go).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scheduler.core.filter_answers import FilterAnswers
from scheduler.core.nodes import NodeTable, narrow
from scheduler.core.nominations import NominatedRows, Nominations
from scheduler.core.questions import Questions, Statuses, no_rejections
from scheduler.core.transaction import Transaction

_KEPT = 4

Kept = dict[NominatedRows, FilterAnswers]
"""Of one kind of pod: what row-local filters that read usage say of nodes with nominated pods."""


class Overlay(NamedTuple):
    """Nodes that reject a pod with the pods nominated there."""

    rows: NDArray[np.intp]
    statuses: Statuses


class Overlays:
    """Made from the nominations as they stand."""

    def __init__(self, nodes: NodeTable, nominations: Nominations) -> None:
        self._nodes, self._nominations = nodes, nominations

    def of(self, questions: Questions, kept: Kept, remote: Statuses | None) -> Overlay | None:
        """None when there is nothing that the pod has to make way for. `remote`: what filters that look
        at other nodes say of all nodes as they are."""
        pod = questions.pod
        nominated = self._nominations.rows_for(pod.priority)
        if nominated is None:
            return None
        usage = _up_to_date(questions, kept, nominated)
        rows = nominated.rows
        statuses = questions.static.take(rows)
        statuses.merge(Statuses(usage.first, usage.bits, usage.unresolvable))
        if remote is not None:
            statuses.merge(remote.take(rows))
        singly = self._to_be_asked_singly(questions)
        if singly:
            known = np.array([self._nodes.names[row] not in singly for row in rows.tolist()], np.bool_)
            rows, statuses = rows[known], statuses.take(known)
            asked = self._ask(questions, singly)
            rows = np.concatenate([rows, asked.rows])
            statuses = statuses.followed_by(asked.statuses)
        rejecting = ~statuses.passing
        return Overlay(rows[rejecting], statuses.take(rejecting))

    def of_few(self, questions: Questions, rows: NDArray[np.intp]) -> Overlay:
        """The same for a few rows, asked for directly."""
        names = (self._nodes.names[row] for row in rows.tolist())
        overlay = self._ask(questions, {name for name in names if name in self._nominations.nodes})
        rejecting = ~overlay.statuses.passing
        return Overlay(overlay.rows[rejecting], overlay.statuses.take(rejecting))

    def _to_be_asked_singly(self, questions: Questions) -> set[str]:
        """Nodes where the nominated pods matter beyond the node, or where the pod itself is one of them."""
        singly = self._nominations.nodes_of_those(questions.mind) if questions.remote else set()
        own = self._nominations.node_of(questions.pod.uid)
        return singly if own is None else {*singly, own}

    def _ask(self, questions: Questions, names: set[str]) -> Overlay:
        """Of those of the nodes that the pod has to make way for others on."""
        rows: list[int] = []
        statuses = no_rejections(0)
        with Transaction(self._nodes, hidden=True) as what_if:
            for name in sorted(names):
                row, others = self._nodes.row_of.get(name), self._nominations.counted(name, questions.pod)
                if row is not None and others:
                    rows.append(row)
                    statuses = statuses.followed_by(questions.with_pods(what_if, row, others))
        return Overlay(np.array(rows, np.intp), statuses)


def _up_to_date(questions: Questions, kept: Kept, nominated: NominatedRows) -> FilterAnswers:
    usage, table = kept.get(nominated), nominated.table
    if usage is None:
        if len(kept) >= _KEPT:
            kept.clear()
        usage = kept[nominated] = FilterAnswers(questions.usage)
    if usage.generation != table.generation:
        usage.resize(len(table))
        rows = table.changed_since(usage.generation)
        if len(rows):
            part = narrow(rows, len(table))
            usage.refresh(questions.pod, part, table.view(part))
        usage.generation = table.generation
    return usage
