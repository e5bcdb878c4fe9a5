"""Wholepod: a Kubernetes scheduler that places whole pods by memory fit.

The names exported here are the plugin API, the only public surface; everything else may change
between versions without notice. How to write a plugin: docs/plugins.md.
"""

from scheduler.core.nodes import NodeView
from scheduler.core.plugin import (
    MAX_NODE_SCORE,
    FilterPlugin,
    FilterResult,
    Plugin,
    PreFilterResult,
    ScorePlugin,
    Wake,
    passes,
    rejects,
)
from scheduler.core.pod_info import PodInfo

__version__ = "0.1.0"

__all__ = [
    "MAX_NODE_SCORE",
    "FilterPlugin",
    "FilterResult",
    "NodeView",
    "Plugin",
    "PodInfo",
    "PreFilterResult",
    "ScorePlugin",
    "Wake",
    "__version__",
    "passes",
    "rejects",
]
