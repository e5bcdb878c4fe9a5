"""ImageLocality: favours nodes that have the pod's images already.

Source: pkg/scheduler/framework/plugins/imagelocality. An image counts with its size on the node, times
the share of nodes that have it, lest the first node that pulled it draws all its pods ("node heating").
Image names are compared as kubelets report them: `nginx` in a pod is not `docker.io/library/nginx` on
a node, in kube-scheduler neither.
"""

import numpy as np

from scheduler.core.nodes import NodeView
from scheduler.core.plugin import MAX_NODE_SCORE, ScorePlugin, Scores
from scheduler.core.pod_info import PodInfo

_MIB = 1024 * 1024
_LEAST = 23 * _MIB
_MOST_PER_IMAGE = 1000 * _MIB


class ImageLocality(ScorePlugin):
    name = "ImageLocality"
    reads = ("images",)

    def version(self, nodes: NodeView) -> int:
        """How far an image has spread concerns all nodes."""
        return nodes.image_generation

    def rates(self, pod: PodInfo) -> bool:
        return bool(pod.images)

    def score(self, pod: PodInfo, nodes: NodeView) -> Scores:
        """int64[n], 0 … 100: scaled bytes present, from 23 MiB for 0 to 1000 MiB an image for 100."""
        present = np.zeros(nodes.count, np.int64)
        for image in pod.images:
            sizes, share = nodes.image(image)
            present += (sizes * share).astype(np.int64)
        most = _MOST_PER_IMAGE * len(pod.images)
        return np.asarray(
            MAX_NODE_SCORE * (present.clip(_LEAST, most) - _LEAST) // (most - _LEAST),
            np.int64,
        )
