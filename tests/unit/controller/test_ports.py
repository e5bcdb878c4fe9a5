"""Containers of one pod that declare the same port."""

from __future__ import annotations

from typing import Any

import msgspec

from scheduler.controller.ports import shared_ports
from scheduler.controller.shapes import PortedSpec


def container(name: str, *ports: int | tuple[int, str], **more: Any) -> dict[str, Any]:
    pairs = [port if isinstance(port, tuple) else (port, None) for port in ports]
    declared = [
        {"containerPort": number, **({"protocol": protocol} if protocol else {})}
        for number, protocol in pairs
    ]
    return {"name": name, "ports": declared, **more}


def said(*containers: dict[str, Any], init: tuple[dict[str, Any], ...] = ()) -> list[str]:
    """Of each text, up to the semicolon."""
    spec = msgspec.convert({"containers": list(containers), "initContainers": list(init)}, PortedSpec)
    return [text.partition(";")[0] for text in shared_ports(spec)]


def test_two_and_three() -> None:
    assert said(container("a", 80, 81), container("b", 80), container("c", 81, 80)) == [
        "containers a, b and c declare the same port 80/TCP",
        "containers a and c declare the same port 81/TCP",
    ]


def test_what_is_no_clash() -> None:
    assert said(container("a", 80), container("b", (80, "UDP")), container("c")) == []
    assert said(container("a", 80, 80)) == [], "that is one container's own affair"
    assert said(container("a", 53, (53, "UDP"))) == []


def test_tcp_is_the_default() -> None:
    assert said(container("a", 80), container("b", (80, "TCP"))) == [
        "containers a and b declare the same port 80/TCP"
    ]


def test_sidecars_run_beside_and_other_init_containers_before() -> None:
    sidecar = container("s", 80, restartPolicy="Always")
    assert said(container("a", 80), init=(container("i", 80),)) == []
    assert said(container("a", 80), init=(sidecar,)) == ["containers s and a declare the same port 80/TCP"]
