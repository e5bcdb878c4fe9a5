"""What a cycle finds for a pod, and where it may look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scheduler.core.plugin import Mask
from scheduler.core.questions import Statuses


@dataclass(frozen=True)
class Placement:
    """What a cycle found. Without a node, `message` is the text of the FailedScheduling event."""

    node: str | None
    message: str = ""
    rejected_by: frozenset[str] = frozenset()
    """Plugins that rejected at least one node (or the pod as such)."""


class Within(NamedTuple):
    """The only nodes that are in question for a pod, whatever filters say of the others."""

    mask: Mask
    """bool[n]."""
    others: str
    """What a message says of the nodes that are not, after their number."""


class Offer(NamedTuple):
    """What filters say of all nodes."""

    statuses: Statuses
    rejection: str | None
    """Why the pod fits no node whatever."""
    only: NDArray[np.intp] | None
    """Rows of the only nodes that are in question, None for all."""
    narrowed_by: frozenset[str]
    """Plugins that say so."""


class Choices(NamedTuple):
    """Rows that a pod could take."""

    best_first: NDArray[np.intp]
    """Where all filters pass."""
    curable: NDArray[np.intp]
    """Where it is only pods missing elsewhere that keep it off; the rows in order."""


NO_CHOICES = Choices(np.empty(0, np.intp), np.empty(0, np.intp))
