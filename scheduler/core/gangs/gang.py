"""What a gang asks for.

Sources: k8s.io/api scheduling/v1beta1 (PodGroup), sigs.k8s.io/scheduler-plugins apis/scheduling/v1alpha1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from scheduler.api_objects import CoschedulingPodGroup, PodGroup
from scheduler.core.gangs.ref import GangRef, Source
from scheduler.core.objects import ClusterObjects
from scheduler.core.pod_info import PodInfo
from scheduler.quantity import QuantityError, resource_amount

MIN_COUNT = "wholepod.io/min-count"
STRATEGY = "wholepod.io/strategy"
TOPOLOGY_KEY = "wholepod.io/topology-key"
HOLD_TIMEOUT = "wholepod.io/hold-timeout"
CONFLICT_MODE = "wholepod.io/conflict-mode"
TRANSACTION = "wholepod.io/transaction"
ON_MEMBER_LOSS = "wholepod.io/on-member-loss"
DELETE_UNCONTROLLED = "wholepod.io/delete-uncontrolled"
OPTIONS = (
    MIN_COUNT,
    STRATEGY,
    TOPOLOGY_KEY,
    HOLD_TIMEOUT,
    CONFLICT_MODE,
    TRANSACTION,
    ON_MEMBER_LOSS,
    DELETE_UNCONTROLLED,
)
"""Annotations of the group's object, or of the pods where there is none; `MIN_COUNT` of pods alone."""

HOLD_TIMEOUT_S = 60.0
"""Of gangs that ask for no other."""


class Strategy(Enum):
    """What happens while members are missing."""

    ATOMIC = "atomic"
    """Nothing is placed, nothing held."""
    HOARDING = "hoarding"
    """Each is placed as it comes, its room held."""
    OPTIMISTIC = "optimistic"
    """Each is placed as it comes, its room left to others until the end."""


class ConflictMode(Enum):
    """When a claim is no longer good."""

    FIT = "fit"
    """The member does not fit any more."""
    SEQUENCE = "sequence"
    """Anything on the node has changed."""


class TransactionMode(Enum):
    """`optimistic`: what a conflict at the commit does to the members that it is not about."""

    ALL_OR_NOTHING = "all-or-nothing"
    """They are planned anew with the others."""
    INCREMENTAL = "incremental"
    """Their room is held, as by `hoarding`, while places are sought for the others."""


class OnMemberLoss(Enum):
    """What becomes of a gang that was complete, when so many members are lost that too few are bound."""

    REPLACE = "replace"
    """New members are placed one by one beside the others, as they come."""
    RESTART = "restart"
    """The others are deleted, too, and the gang starts anew as a whole."""
    KEEP = "keep"
    """The others stay. New members are placed when they make the gang complete again, together."""


@dataclass(frozen=True, slots=True)
class GangPolicy:
    """What a profile lets its gangs ask for, and what it does for them."""

    profile: str = ""
    """Its schedulerName."""
    strategies: tuple[Strategy, ...] = tuple(Strategy)
    default_strategy: Strategy = Strategy.ATOMIC
    max_hold_timeout_s: float = 3600.0
    """Longer ones are cut: a hold that ends earlier is only planned again."""
    max_held_by_namespace: float = 1.0
    """0 to 1 of the cluster's memory, as held by all gangs of a namespace; each gang's own profile counts."""
    max_held: float = 1.0
    """The same for all gangs."""
    starvation_after_s: float = 60.0
    """How long a gang that could be placed whole has to wait before nodes are kept for it."""
    compensation_deadline_s: float = 60.0
    """So long after its first bind a gang may be bound in part; then it is completed, or its members go."""
    largest_first: bool = True
    """In which order members are planned; if not, native groups' are in kube-scheduler's."""


@dataclass(frozen=True, slots=True)
class GangOptions:
    """What a gang asks for."""

    min_count: int
    """So many members are placed together, or none; at least 1."""
    strategy: Strategy = Strategy.ATOMIC
    topology_key: str = ""
    """All members go to nodes with one value of this label; empty: anywhere."""
    hold_timeout_s: float = HOLD_TIMEOUT_S
    """`hoarding`: how long room is held for the members that are missing."""
    conflict_mode: ConflictMode = ConflictMode.FIT
    """`optimistic`: what counts as others having interfered with a claim."""
    transaction: TransactionMode = TransactionMode.ALL_OR_NOTHING
    min_resources: Mapping[str, int] = field(default_factory=dict)
    """It is not tried before the cluster has so much room; by resource, in the unit of its column."""
    on_member_loss: OnMemberLoss = OnMemberLoss.REPLACE
    delete_uncontrolled: bool = False
    """Whether members that no controller would create again may be deleted with their gang."""


class GangError(ValueError):
    """A gang that can't be placed as it is described; the text says why, and what would help."""


def read_options(ref: GangRef, oldest: PodInfo, cluster: ClusterObjects, policy: GangPolicy) -> GangOptions:
    """What the gang asks for, by its group, or by the annotations of its oldest member when it has none,
    as far as `policy` allows it.

    Raises GangError.
    """
    match ref.source:
        case Source.NATIVE:
            native = cluster.get(PodGroup, ref.name, ref.namespace)
            if native is None:
                raise GangError(f"waiting for the PodGroup {ref} ({ref.source.value}) to be created")
            gang = native.spec.scheduling_policy.gang
            topology = native.spec.scheduling_constraints.topology or ()
            return _options(
                native.metadata.annotations or {},
                policy,
                min_count=gang.min_count if gang is not None else 1,
                topology_key=topology[0].key if topology else "",
            )
        case Source.COSCHEDULING:
            group = cluster.get(CoschedulingPodGroup, ref.name, ref.namespace)
            if group is None:
                raise GangError(f"waiting for the PodGroup {ref} ({ref.source.value}) to be created")
            timeout_s = group.spec.schedule_timeout_seconds
            return _options(
                group.metadata.annotations or {},
                policy,
                min_count=max(group.spec.min_member, 1),
                hold_timeout_s=HOLD_TIMEOUT_S if timeout_s is None else float(max(timeout_s, 0)),
                min_resources=_min_resources(ref, group.spec.min_resources or {}),
            )
        case Source.ANNOTATIONS:
            min_count = read_min_count(oldest.annotations, f"{oldest.name}, the oldest member,")
            return _options(oldest.annotations, policy, min_count=min_count)


def read_min_count(annotations: Mapping[str, str], whose: str) -> int:
    """What `min-count` says. Raises GangError."""
    text = annotations.get(MIN_COUNT, "")
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise GangError(
            f"annotation {MIN_COUNT} of {whose} must be a whole number of at least 1, got {text!r}"
        )
    return value


def _min_resources(ref: GangRef, wanted: Mapping[str, str | int]) -> dict[str, int]:
    found = {}
    for name, quantity in wanted.items():
        try:
            found[name] = resource_amount(name, str(quantity))
        except QuantityError as error:
            raise GangError(
                f"minResources of the PodGroup {ref} ({ref.source.value}): {name}: {error}"
            ) from error
    return found


def check_annotations(annotations: Mapping[str, str], policy: GangPolicy) -> list[str]:
    """Before there is a gang: raises GangError as `read_options` will. Returns what will be done otherwise
    than it is asked for."""
    options = _options(annotations, policy, min_count=1)
    if _seconds(annotations, HOLD_TIMEOUT, 0.0) > options.hold_timeout_s:
        return [
            f"annotation {HOLD_TIMEOUT} is cut to {options.hold_timeout_s:g}s, gangs.maxHoldTimeout of "
            f"profile {policy.profile}"
        ]
    return []


def _options(
    annotations: Mapping[str, str],
    policy: GangPolicy,
    *,
    min_count: int,
    topology_key: str = "",
    hold_timeout_s: float = HOLD_TIMEOUT_S,
    min_resources: Mapping[str, int] | None = None,
) -> GangOptions:
    strategy = _choice(annotations, STRATEGY, policy.default_strategy)
    if strategy not in policy.strategies:
        allowed = ", ".join(each.value for each in policy.strategies)
        raise GangError(
            f"annotation {STRATEGY}: {strategy.value} is none of the strategies ({allowed}) that "
            f"gangs.strategies of profile {policy.profile} allows; use one of these, or have it added there"
        )
    hold_timeout_s = _seconds(annotations, HOLD_TIMEOUT, hold_timeout_s)
    return GangOptions(
        min_count=min_count,
        strategy=strategy,
        topology_key=annotations.get(TOPOLOGY_KEY, topology_key),
        hold_timeout_s=min(hold_timeout_s, policy.max_hold_timeout_s),
        conflict_mode=_choice(annotations, CONFLICT_MODE, ConflictMode.FIT),
        transaction=_choice(annotations, TRANSACTION, TransactionMode.ALL_OR_NOTHING),
        min_resources=min_resources or {},
        on_member_loss=_choice(annotations, ON_MEMBER_LOSS, OnMemberLoss.REPLACE),
        delete_uncontrolled=_flag(annotations, DELETE_UNCONTROLLED),
    )


E = TypeVar("E", bound=Enum)


def _choice(annotations: Mapping[str, str], key: str, default: E) -> E:
    text = annotations.get(key, default.value)
    try:
        return type(default)(text)
    except ValueError:
        known = ", ".join(member.value for member in type(default))
        raise GangError(f"annotation {key} must be one of {known}, got {text!r}") from None


def _flag(annotations: Mapping[str, str], key: str) -> bool:
    text = annotations.get(key, "false")
    if text not in ("true", "false"):
        raise GangError(f"annotation {key} must be true or false, got {text!r}")
    return text == "true"


def _seconds(annotations: Mapping[str, str], key: str, default: float) -> float:
    text = annotations.get(key)
    if text is None:
        return default
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text, re.ASCII)
    if match is None:
        raise GangError(f"annotation {key} must be a duration such as 90s, 5m or 1h, got {text!r}")
    return float(match[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}[match[2]]
