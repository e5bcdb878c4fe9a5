"""kube-scheduler's extender protocol: bytes of a request → structs, structs → bytes of an answer.

Go's structs have no JSON tags, so fields are written in PascalCase, and read in any case. Objects within
(pods, nodes) are ordinary Kubernetes JSON. Only what is needed is decoded: of a node its name, and the node
itself is handed back as the bytes that came.
Source: k8s.io/kube-scheduler/extender/v1/types.go; pkg/scheduler/extender.go, which reads the answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from scheduler.api import Pod

MAX_SCORE = 10
"""MaxExtenderPriority."""
T = TypeVar("T")
Raw = msgspec.Raw
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class WireError(ValueError):
    """The request is not what the protocol says; the text names what is wrong."""


class Args(msgspec.Struct, frozen=True):
    """ExtenderArgs: of filter and prioritize."""

    pod: Pod
    pod_bytes: bytes
    """The pod as it came: equal bytes are equal pods."""
    names: list[str] | None
    """Of the nodes in question, in the request's order; None when there was no list of either sort."""
    names_bytes: bytes | None
    """The list as it came, if it was one of names (`nodeCacheCapable: true`)."""
    nodes: list[Raw] | None
    """The node objects, in the same order, if it was a list of them (`nodeCacheCapable: false`)."""


class MetaPod(msgspec.Struct, frozen=True):
    uid: str = msgspec.field(name="UID", default="")


class MetaVictims(msgspec.Struct, frozen=True):
    """Pods to evict from a node, and how many of them overdraw a disruption budget."""

    pods: list[MetaPod] = msgspec.field(name="Pods", default_factory=list)
    violations: int = msgspec.field(name="NumPDBViolations", default=0)


class PreemptionArgs(msgspec.Struct, frozen=True):
    """ExtenderPreemptionArgs, with either sort of victims."""

    pod: Pod
    pod_bytes: bytes
    victims: dict[str, MetaVictims]
    """By node."""


class BindingArgs(msgspec.Struct, frozen=True):
    """ExtenderBindingArgs."""

    name: str
    namespace: str
    uid: str
    node: str


class _NodeList(msgspec.Struct):
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    items: list[Raw] = msgspec.field(default_factory=list)


class FilterResult(msgspec.Struct, rename="pascal", kw_only=True):
    """ExtenderFilterResult."""

    nodes: _NodeList | None = None
    node_names: Raw | Sequence[str] | None = None
    failed_nodes: Mapping[str, str] = msgspec.field(default_factory=dict)
    failed_and_unresolvable_nodes: Mapping[str, str] = msgspec.field(default_factory=dict)
    error: str = ""


class PreemptionResult(msgspec.Struct, rename="pascal"):
    """ExtenderPreemptionResult."""

    node_name_to_meta_victims: Mapping[str, MetaVictims]


class BindingResult(msgspec.Struct, rename="pascal"):
    """ExtenderBindingResult."""

    error: str = ""


class HostPriority(msgspec.Struct, rename="pascal", gc=False):
    host: str
    score: int


class _Meta(msgspec.Struct):
    name: str


class _Named(msgspec.Struct):
    metadata: _Meta


encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(dict[str, Raw])
_pod = msgspec.json.Decoder(Pod)
_names = msgspec.json.Decoder(list[str])
_raws = msgspec.json.Decoder(list[Raw] | None)
_named = msgspec.json.Decoder(_Named)
_text: msgspec.json.Decoder[str | None] = msgspec.json.Decoder(str | None)
_count = msgspec.json.Decoder(_Int64 | None)
_NULL = b"null"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""IsDNS1123Subdomain (apimachinery pkg/util/validation/validation.go)."""
_LONGEST_NAME = 253
_LARGEST_POD_BYTES = 3 << 20
"""As much as the API server takes of a request (apiserver pkg/server/config.go, MaxRequestBodyBytes)."""


def decode_args(body: bytes) -> Args:
    """Raises WireError."""
    fields = _object(body, "the request")
    pod, pod_bytes = _decoded_pod(fields)
    names_bytes, names, nodes = _present(fields, "nodenames"), None, None
    if names_bytes is not None:
        names = _decode(_names, names_bytes, "NodeNames")
    elif (listed := _present(fields, "nodes")) is not None:
        items = _present(_object(listed, "Nodes"), "items")
        nodes = (_decode(_raws, items, "Nodes.items") or []) if items is not None else []
        names = [_decode(_named, item, "Nodes.items[]").metadata.name for item in nodes]
    return Args(pod, pod_bytes, names, names_bytes, nodes)


def decode_preemption_args(body: bytes) -> PreemptionArgs:
    """Raises WireError."""
    fields = _object(body, "the request")
    pod, pod_bytes = _decoded_pod(fields)
    meta = _present(fields, "nodenametometavictims")
    full = _present(fields, "nodenametovictims")
    victims: dict[str, MetaVictims] = {}
    if meta is not None:
        for node, raw in _decode(_fields, meta, "NodeNameToMetaVictims").items():
            victims[node] = _victims(raw, _uid_of_meta)
    elif full is not None:
        for node, raw in _decode(_fields, full, "NodeNameToVictims").items():
            victims[node] = _victims(raw, _uid_of_pod)
    return PreemptionArgs(pod, pod_bytes, victims)


def decode_binding_args(body: bytes) -> BindingArgs:
    """Raises WireError."""
    fields = _object(body, "the request")

    def text(name: str) -> str:
        raw = _present(fields, name.lower())
        value = None if raw is None else _decode(_text, raw, name)
        if not value:
            raise WireError(f"{name} is missing")
        return value

    def name(field: str) -> str:
        """Names become part of a path at the API server, where `..` or a slash would lead elsewhere."""
        value = text(field)
        if len(value) > _LONGEST_NAME or not _NAME.fullmatch(value):
            raise WireError(f"{field} is no name of an object: {value[:_LONGEST_NAME]!r}")
        return value

    uid = text("PodUID")
    if len(uid) > _LONGEST_NAME:
        raise WireError(f"PodUID is longer than {_LONGEST_NAME} characters")
    return BindingArgs(name("PodName"), name("PodNamespace"), uid, name("Node"))


def filter_result(args: Args, passing: Sequence[bool] | None, **fields: Any) -> FilterResult:
    """What passes, in the form that was asked in. `passing`: for each of the nodes; None for all of them."""
    if args.names is None:
        return FilterResult(**fields)
    if args.nodes is not None:
        kept = args.nodes if passing is None else _where(args.nodes, passing)
        return FilterResult(nodes=_NodeList(items=kept), **fields)
    if passing is None and args.names_bytes is not None:
        return FilterResult(node_names=Raw(args.names_bytes), **fields)
    return FilterResult(node_names=_where(args.names, passing or ()), **fields)


def _where(items: list[T], passing: Sequence[bool]) -> list[T]:
    return [item for item, passes in zip(items, passing, strict=True) if passes]


def _victims(raw: Raw, uid_of: Any) -> MetaVictims:
    what = "victims of a node"
    if bytes(raw) == _NULL:
        return MetaVictims()
    fields = _object(bytes(raw), what)
    pods, violations = _present(fields, "pods"), _present(fields, "numpdbviolations")
    items = (_decode(_raws, pods, f"Pods of {what}") or []) if pods is not None else []
    number = _decode(_count, violations, "NumPDBViolations") if violations is not None else 0
    return MetaVictims([MetaPod(uid_of(item)) for item in items], number or 0)


def _uid_of_meta(raw: Raw) -> str:
    uid = _present(_object(bytes(raw), "a victim"), "uid")
    return (None if uid is None else _decode(_text, uid, "UID of a victim")) or ""


class _Uid(msgspec.Struct):
    uid: str = ""


class _HasUid(msgspec.Struct):
    metadata: _Uid


_has_uid = msgspec.json.Decoder(_HasUid)


def _uid_of_pod(raw: Raw) -> str:
    return _decode(_has_uid, bytes(raw), "a victim").metadata.uid


def _decoded_pod(fields: Mapping[str, Raw]) -> tuple[Pod, bytes]:
    raw = _present(fields, "pod")
    if raw is None:
        raise WireError("Pod is missing")
    if len(raw) > _LARGEST_POD_BYTES:
        raise WireError(f"Pod has {len(raw)} bytes; no API server takes more than {_LARGEST_POD_BYTES}")
    pod = _decode(_pod, raw, "Pod")
    if not pod.metadata.uid:
        raise WireError("Pod.metadata.uid is missing")
    return pod, raw


def _object(body: bytes, what: str) -> dict[str, Raw]:
    """Fields by name in lower case. Like Go, the last of several counts."""
    return {name.lower(): raw for name, raw in _decode(_fields, body, what).items()}


def _present(fields: Mapping[str, Raw], name: str) -> bytes | None:
    """The field's bytes, None when it is missing or null."""
    raw = fields.get(name)
    if raw is None:
        return None
    found = bytes(raw)
    return None if found == _NULL else found


def _decode(decoder: msgspec.json.Decoder[T], raw: bytes | Raw, what: str) -> T:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireError(f"{what}: {error}") from error
    except RecursionError as error:
        raise WireError(f"{what}: nested too deeply") from error
