"""Containers of one pod that declare the same port.

The containers of a pod share one network namespace, so of two that listen on the same port one fails to
start, again and again. Whoever turns several pods into one whole pod meets this first. It is a warning, as a
declared port need not be listened on.

Init containers count if they are sidecars: others have ended when the next one starts. The API server
warns of the same in its own words, which name fields and no remedy (pkg/api/pod/warnings.go).
"""

from __future__ import annotations

from collections import defaultdict

from scheduler.controller.shapes import PortedSpec

REASON = "SharedPort"


def shared_ports(spec: PortedSpec) -> list[str]:
    """A text for each port that several containers declare, in order of appearance."""
    sidecars = [each for each in spec.init_containers or () if each.restart_policy == "Always"]
    users: defaultdict[tuple[str, int], dict[str, None]] = defaultdict(dict)
    for container in (*sidecars, *(spec.containers or ())):
        for port in container.ports or ():
            users[port.protocol or "TCP", port.container_port][container.name] = None
    return [
        f"containers {_listed(list(names))} declare the same port {number}/{protocol}; the containers of a "
        "pod share one network namespace, so only one of them can listen on it: let the others listen on "
        "another port (and change containerPort), or drop the port where nothing listens on it"
        for (protocol, number), names in users.items()
        if len(names) > 1
    ]


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
