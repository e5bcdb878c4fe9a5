"""What the API server does to an object before a scheduler sees it, as far as decisions depend on it.

Wholepod, like kube-scheduler, only ever meets objects that went through the API server. Documents are
written by hand or by a generator, so the same defaults are filled in here that the oracle fills in
(pkg/apis/core/v1/defaults.go): a limit without a request is the request, ports of the host network
are host ports, quantities are rounded up to thousandths.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgspec

from scheduler.api import Namespace, Node, Pod
from scheduler.api_objects import ClusterObject
from scheduler.kube.resources import RESOURCES
from scheduler.quantity import NANOS_PER_MILLI, nanos

Json = dict[str, Any]

_KINDS: dict[str, type[ClusterObject]] = {kind.__name__: kind for kind in RESOURCES}


def admit_pod(raw: Json, uid: str) -> Pod:
    """The pod as a scheduler gets it; `raw` is left alone. Raises msgspec.ValidationError."""
    metadata = {"namespace": "default", "uid": uid, **raw.get("metadata", {})}
    spec = dict(raw.get("spec", {}))
    for kind in ("containers", "initContainers"):
        host_network = spec.get("hostNetwork", False)
        spec[kind] = [_container(c, host_network=host_network) for c in spec.get(kind) or ()]
    pod = {**raw, "metadata": metadata, "spec": spec}
    return msgspec.json.decode(msgspec.json.encode(_with_rounded_quantities(pod)), type=Pod)


def admit_node(raw: Json) -> Node:
    """The node as a scheduler gets it: without `allocatable`, all of its capacity is."""
    status = dict(raw.get("status", {}))
    status.setdefault("allocatable", status.get("capacity"))
    return msgspec.convert(_with_rounded_quantities({**raw, "status": status}), Node)


def admit_pods(document: Json) -> Iterator[Pod]:
    """The bound pods, the one to place, and those that are nominated; uids as the oracle gives them."""
    nominated = (each["pod"] for each in document.get("nominated") or ())
    for i, raw in enumerate((*(document.get("pods") or ()), document["pod"], *nominated)):
        yield admit_pod(raw, f"uid-{i}")


def admit_namespaces(document: Json) -> Iterator[Namespace]:
    """The document's namespaces; those that pods merely name have no labels."""
    for raw in document.get("objects") or ():
        if raw["kind"] == "Namespace":
            yield msgspec.convert(raw, Namespace)


def admit_objects(document: Json) -> Iterator[ClusterObject]:
    """The document's other objects, of all kinds that Wholepod knows."""
    for raw in document.get("objects") or ():
        kind = _KINDS.get(raw["kind"])
        if kind is not None:
            yield msgspec.convert(raw, kind)


def _container(raw: Json, *, host_network: bool) -> Json:
    container = dict(raw)
    resources = container.get("resources") or {}
    if resources.get("limits"):
        container["resources"] = {
            **resources,
            "requests": {**resources["limits"], **(resources.get("requests") or {})},
        }
    if host_network:
        container["ports"] = [
            {**port, "hostPort": port.get("hostPort") or port["containerPort"]}
            for port in container.get("ports") or ()
        ]
    return container


_QUANTITY_MAPS = frozenset(
    {"requests", "limits", "overhead", "allocatable", "capacity", "allocatedResources"}
)


def _with_rounded_quantities(value: Any, key: str = "") -> Any:
    """`SetDefaults_ResourceList` for all resource lists, wherever they are."""
    if isinstance(value, dict):
        if key in _QUANTITY_MAPS:
            return {name: _rounded_up(quantity) for name, quantity in value.items()}
        return {name: _with_rounded_quantities(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_rounded_quantities(item) for item in value]
    return value


@lru_cache(maxsize=65536)
def _rounded_up(quantity: str | float | None) -> str:
    """JSON numbers are quantities too, and null is zero."""
    text = "0" if quantity is None else str(quantity)
    milli, rest = divmod(nanos(text), NANOS_PER_MILLI)
    return f"{milli + 1}m" if rest else text
