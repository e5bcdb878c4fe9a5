"""The plugin contract: arrays in, arrays out.

A plugin sees one pod and many nodes at once (`NodeView`), and answers for all of them in one call,
because in Python a call per node is what makes a scheduler slow. The same code is run on all rows
when a pod of a new kind arrives and on the few rows that changed afterwards, so a plugin must not
keep state between calls. Plugins about what is on *other* nodes (`row_local = False`) always see all
rows; they are asked at each decision, unless what they hand out for each kind of pod follows changes by
itself (`scheduler.core.following`).

The words are kube-scheduler's (k8s.io/kube-scheduler/framework/interface.go): PreFilter, Filter,
Score, NormalizeScore; a rejection is *unresolvable* when evicting pods could not cure it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from enum import Flag, auto
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scheduler.core.following import AskFilter, AskRank, FilterFollower, RankFollower

if TYPE_CHECKING:
    from scheduler.api_objects import ClusterObject
    from scheduler.core.attempt import Attempt
    from scheduler.core.nodes import NodeView
    from scheduler.core.pod_info import PodInfo
    from scheduler.core.preemption import Preemption
    from scheduler.core.volumes.plan import VolumePlan

MAX_NODE_SCORE = 100
"""Upper end of normalised scores (framework.MaxNodeScore)."""

Bits = NDArray[np.uint64]
Mask = NDArray[np.bool_]
Scores = NDArray[np.int64]


class Wake(Flag):
    """Cluster events that may turn a rejection around (framework.ClusterEvent)."""

    NOTHING = 0
    NODE_ADD = auto()
    NODE_ALLOCATABLE = auto()
    NODE_LABELS = auto()
    NODE_TAINTS = auto()
    NODE_SCHEDULABLE = auto()
    NODE_FEATURES = auto()
    """The features that a node declares (`status.declaredFeatures`)."""
    ASSIGNED_POD_REMOVED = auto()
    """A pod on a node is gone, finished or asks for less: room or a port became free."""
    ASSIGNED_POD_ADDED = auto()
    """A pod has a node now, or is assumed on one."""
    ASSIGNED_POD_CHANGED = auto()
    """Labels of a pod on a node changed, or it is being deleted."""
    NODE_REMOVED = auto()
    NAMESPACE_LABELS = auto()
    VOLUME = auto()
    """A PersistentVolume came, changed or went; the following likewise."""
    VOLUME_CLAIM = auto()
    STORAGE_CLASS = auto()
    CSI_NODE = auto()
    CSI_DRIVER = auto()
    STORAGE_CAPACITY = auto()
    VOLUME_ATTACHMENT = auto()
    WORKLOAD = auto()
    """A Service, ReplicationController, ReplicaSet or StatefulSet came, changed or went."""

    NODE_ANY = NODE_ADD | NODE_ALLOCATABLE | NODE_LABELS | NODE_TAINTS | NODE_SCHEDULABLE | NODE_FEATURES
    ASSIGNED_POD_ANY = ASSIGNED_POD_REMOVED | ASSIGNED_POD_ADDED | ASSIGNED_POD_CHANGED
    STORAGE_ANY = (
        VOLUME | VOLUME_CLAIM | STORAGE_CLASS | CSI_NODE | CSI_DRIVER | STORAGE_CAPACITY | VOLUME_ATTACHMENT
    )
    OBJECT_ANY = STORAGE_ANY | WORKLOAD
    """Changes of objects beside nodes and pods."""
    ANY = NODE_ANY | NODE_REMOVED | ASSIGNED_POD_ANY | NAMESPACE_LABELS | OBJECT_ANY


class ObjectChange(NamedTuple):
    """An object beside nodes and pods that came (`before` is None), changed, or went (`after` is None)."""

    before: ClusterObject | None
    after: ClusterObject | None


class PreFilterResult(NamedTuple):
    """What a plugin can say of a pod before it looks at nodes."""

    rejection: str | None = None
    """The pod fits no node whatever; the text goes into the event."""
    node_names: frozenset[str] | None = None
    """Only these nodes need to be looked at; None means all."""


class FilterResult(NamedTuple):
    """Per node: why not (0 = passes), and whether preemption could not help."""

    reason_bits: Bits
    """uint64[n]; bit k stands for the k-th text of `FilterPlugin.reasons`."""
    unresolvable: Mask
    """bool[n]; read only where `reason_bits` is not 0."""


class Ranking(NamedTuple):
    """Scores that depend on which nodes are feasible."""

    raw: Scores
    """int64[feasible]."""
    normalized: Scores
    """int64[feasible], 0..100."""


ALL_NODES = PreFilterResult()


class Plugin:
    """Base of all plugins. Subclass `FilterPlugin`, `ScorePlugin` or both.

    An instance is made per profile as `cls(args)`, `args` being the profile's `pluginConfig`
    entry (an empty mapping when there is none); raise ValueError for arguments that make no sense.
    """

    name: ClassVar[str]
    reads: ClassVar[tuple[str, ...]]
    """Attributes of `PodInfo` that the answer depends on. Pods that agree in all of them share
    one answer, so a field that is read but not named here is a wrong answer waiting to happen."""
    reads_usage: ClassVar[bool] = False
    """Whether the answer depends on the pods already on the node. If not, it is kept until the
    node object itself changes."""
    reads_amounts_only: ClassVar[bool] = False
    """Whether a node's answer depends on nothing of the node but `allocatable`, `requested`,
    `nonzero_requested`, `pod_count` and `pod_limit` (and `version`): what was said of one node then
    holds for every other with the same amounts. For plugins with `reads_usage`."""
    row_local: ClassVar[bool] = True
    """Whether a node's answer depends on that node alone. If not, the plugin always sees all nodes,
    its answers are made anew for each decision, and events on one node may help on any other."""

    watches: tuple[type[ClusterObject], ...] = ()
    """Kinds of objects in `NodeView.cluster` that the answer depends on; they are watched if, and only
    if, a plugin in use says so. May be an instance's own, where it depends on the arguments."""

    def __init__(self, args: Mapping[str, Any] | None = None) -> None:
        if args:
            raise ValueError(f"plugin {self.name} takes no arguments, got {', '.join(sorted(args))}")

    def context(self, pod: PodInfo, nodes: NodeView) -> tuple[Hashable, ...]:
        """What of the cluster concerns this pod beyond the fields in `reads`, empty for nothing.

        Only for plugins that are not row-local. Pods share answers if their contexts are equal, too.
        """
        return ()


class FilterPlugin(Plugin):
    """Says which nodes a pod cannot go to, and why."""

    wakes_on: Wake = Wake.ANY
    """Events after which a pod rejected by this plugin is worth another try. May be an instance's own,
    where it depends on the arguments."""

    cured_by_pods: ClassVar[int] = 0
    """Reason bits that further pods on nodes can cure: a pod that is wanted nearby is missing, say.
    Members of a gang that need each other are planned together by this."""

    def prefilter(self, pod: PodInfo) -> PreFilterResult:
        """Asked once for all pods of a kind, so the pod's `reads` is all it may depend on; the
        default looks at all nodes."""
        return ALL_NODES

    def may_help(self, pod: PodInfo, change: ObjectChange) -> bool:
        """Whether a change of an object, of a kind that `wakes_on` names, may turn this plugin's rejection
        of the pod around (framework.QueueingHintFn). Events of nodes and pods are not asked about."""
        return True

    def applies(self, pod: PodInfo) -> bool:
        """False when this plugin has nothing to say of the pod (kube-scheduler's Skip), as long as
        its `context` is empty."""
        return True

    def applies_in(self, context: tuple[Hashable, ...]) -> bool:
        """Whether this context, which is not empty, gives the filter something to say, too. Only for
        plugins that are not row-local."""
        return True

    def refuses(self, pod: PodInfo, nodes: NodeView) -> str | None:
        """Why the pod fits no node whatever as the cluster stands, for the event; None when it may.

        Like `prefilter`, but asked at each decision about pods with a `context`. Only for plugins that are
        not row-local.
        """
        return None

    def plan(self, pod: PodInfo, nodes: NodeView, row: int) -> VolumePlan | None:
        """What has to be written before the pod, which fits there, can be bound to the node of this row.

        Asked once, when the pod is placed; `nodes` are all nodes. Only for plugins that are not row-local.
        """
        return None

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        """The texts behind the reason bits, at most 64."""
        raise NotImplementedError

    def filter(self, pod: PodInfo, nodes: NodeView) -> FilterResult:
        """Reason bits and unresolvable flags for the rows of `nodes`, in their order."""
        raise NotImplementedError

    def minds(self, pod: PodInfo, other: PodInfo, nodes: NodeView) -> bool:
        """Whether another pod's being on some node can make a difference to what `filter` says of this
        one. Only for plugins that are not row-local; yes is always a safe answer."""
        return True

    def follow_filter(self, pod: PodInfo, nodes: NodeView) -> FilterFollower:
        """`filter` for all nodes, and in a form that follows changes. Only for plugins that are not
        row-local; the default asks `filter` each time."""
        return AskFilter(self, pod, nodes)


class ScorePlugin(Plugin):
    """Says how good each node is for a pod; more is better.

    Raw scores of a plugin with `reads_usage` are redone for each row that a placement changes, those
    of the others only when node objects change. A plugin of the latter kind whose raw scores are the
    same for all nodes takes no part in a decision at all: adding a constant changes no maximum.
    """

    normalized: ClassVar[bool] = True
    """Whether raw scores are already 0..100; if not, `normalize` brings them there."""
    full_resolution: ClassVar[bool] = False
    """Whether raw scores, more being better, decide as they are when no other plugin has anything to
    say of the pod, and between nodes whose totals are equal when others do. For plugins with
    `reads_usage` only."""

    def version(self, nodes: NodeView) -> int:
        """Changes when raw scores of untouched rows change; cached scores are then dropped. Asked
        before each decision, or without `reads_usage` after a node object has changed."""
        return 0

    def rates(self, pod: PodInfo) -> bool:
        """False when nothing in the pod makes one node better than another for this plugin
        (kube-scheduler's Skip in PreScore); asked once per kind of pod."""
        return True

    def score(self, pod: PodInfo, nodes: NodeView) -> Scores:
        """Raw scores int64[n] for the rows of `nodes`; rows that do not fit are not read."""
        raise NotImplementedError

    def normalize(self, raw: Scores) -> Scores:
        """Raw scores of the feasible nodes (never empty) to 0..100."""
        return raw

    def prefers(self, pod: PodInfo, nodes: NodeView) -> bool:
        """Whether `rank` has anything to say of the pod. Only for plugins that are not row-local."""
        return True

    def rank(self, pod: PodInfo, nodes: NodeView, feasible: Mask) -> Ranking:
        """Scores of the feasible nodes (never none), in order. Called in place of `score` and
        `normalize` for plugins that are not row-local; `nodes` are all nodes."""
        raise NotImplementedError

    def follow_rank(self, pod: PodInfo, nodes: NodeView) -> RankFollower:
        """`rank` in a form that follows changes; the default asks `rank` each time."""
        return AskRank(self, pod, nodes)


class PostFilterResult(NamedTuple):
    """What came of trying to help a pod that fits nowhere."""

    message: str
    """Goes into the event, after what the filters said."""
    preemption: Preemption | None = None
    """Set if these evictions will make the pod fit."""
    keeps_nomination: bool = False
    """Without a preemption: whether the pod stays nominated to the node that it is nominated to."""
    unfinished: bool = False
    """Not all was tried for lack of time: the pod is to be tried again soon, whatever happens."""


class PostFilterPlugin(Plugin):
    """Tries to make room for pods that fit nowhere."""

    def post_filter(self, attempt: Attempt) -> PostFilterResult:
        """Asked when a pod, which `attempt` knows, has been rejected by all nodes or as such."""
        raise NotImplementedError

    def might_help(self, attempt: Attempt) -> bool:
        """Whether a sleeping pod is worth another try, for something has happened on the nodes that are
        considered in this attempt, though it does not fit there."""
        raise NotImplementedError


def passes(n: int) -> FilterResult:
    """A filter's answer when every one of n nodes is fine."""
    return FilterResult(np.zeros(n, np.uint64), np.zeros(n, np.bool_))


def rejects(where: Mask, *, unresolvable: bool) -> FilterResult:
    """A filter's answer with a single reason (bit 0) for the nodes in `where`."""
    return FilterResult(where.astype(np.uint64), np.full(len(where), unresolvable))


def scaled_to_highest(raw: Scores, *, reverse: bool = False) -> Scores:
    """`normalize` of plugins that count: the highest raw score becomes 100, or 0 with `reverse`.

    Source: DefaultNormalizeScore (pkg/scheduler/framework/plugins/helper/normalize_score.go).
    """
    highest = int(raw.max(initial=0))
    if highest == 0:
        return np.full_like(raw, MAX_NODE_SCORE) if reverse else raw
    scaled = MAX_NODE_SCORE * raw // highest
    return MAX_NODE_SCORE - scaled if reverse else scaled
