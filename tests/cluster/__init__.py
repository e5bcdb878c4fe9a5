"""Real Kubernetes control planes on loopback, for tests, benches and the demo.

    with ControlPlane(kwok=True) as plane:
        plane.api.create_many(node_manifest(f"node-{n}") for n in range(100))
        print(plane.kubectl("get", "nodes"))

`python -m tests.cluster --help` is the same for people.
"""

from tests.cluster.api import Api, ApiError, node_manifest, pod_manifest
from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ClusterError

__all__ = ["Api", "ApiError", "ClusterError", "ControlPlane", "node_manifest", "pod_manifest"]
