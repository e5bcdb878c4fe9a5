"""kube-scheduler's configuration file, read as strictly as our own.

Fields are those of KubeSchedulerConfiguration in kubescheduler.config.k8s.io/v1 (k8s.io/kube-scheduler/
config/v1/types.go). What is null is not there, as in Go.
"""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from scheduler.config import ConfigurationError, explain, locate, read_yaml

API_VERSION = "kubescheduler.config.k8s.io/v1"
KIND = "KubeSchedulerConfiguration"


class _Struct(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Base: camelCase in the file, strict."""


class KubePlugin(_Struct, frozen=True):
    name: str
    weight: int | None = None


class KubePluginSet(_Struct, frozen=True):
    enabled: tuple[KubePlugin, ...] = ()
    disabled: tuple[KubePlugin, ...] = ()


class KubePlugins(_Struct, frozen=True):
    """One set for each extension point."""

    pre_enqueue: KubePluginSet = KubePluginSet()
    queue_sort: KubePluginSet = KubePluginSet()
    pre_filter: KubePluginSet = KubePluginSet()
    filter: KubePluginSet = KubePluginSet()
    post_filter: KubePluginSet = KubePluginSet()
    pre_score: KubePluginSet = KubePluginSet()
    score: KubePluginSet = KubePluginSet()
    reserve: KubePluginSet = KubePluginSet()
    permit: KubePluginSet = KubePluginSet()
    pre_bind: KubePluginSet = KubePluginSet()
    bind: KubePluginSet = KubePluginSet()
    post_bind: KubePluginSet = KubePluginSet()
    multi_point: KubePluginSet = KubePluginSet()
    placement_generate: KubePluginSet = KubePluginSet()
    placement_score: KubePluginSet = KubePluginSet()
    pod_group_post_filter: KubePluginSet = KubePluginSet()


class KubePluginConfig(_Struct, frozen=True):
    name: str
    args: dict[str, Any] = {}


class KubeProfile(_Struct, frozen=True):
    scheduler_name: str | None = None
    percentage_of_nodes_to_score: int | None = None
    plugins: KubePlugins = KubePlugins()
    plugin_config: tuple[KubePluginConfig, ...] = ()


class KubeLeaderElection(_Struct, frozen=True):
    leader_elect: bool | None = None
    lease_duration: str | None = None
    renew_deadline: str | None = None
    retry_period: str | None = None
    resource_lock: str | None = None
    resource_name: str | None = None
    resource_namespace: str | None = None


class KubeClientConnection(_Struct, frozen=True):
    kubeconfig: str | None = None
    accept_content_types: str | None = None
    content_type: str | None = None
    qps: float | None = None
    burst: int | None = None


class KubeConfiguration(_Struct, frozen=True):
    api_version: str
    kind: str
    parallelism: int | None = None
    leader_election: KubeLeaderElection = KubeLeaderElection()
    client_connection: KubeClientConnection = KubeClientConnection()
    healthz_bind_address: str | None = None
    """This and the next were there before v1, and are found in many files."""
    metrics_bind_address: str | None = None
    enable_profiling: bool | None = None
    enable_contention_profiling: bool | None = None
    percentage_of_nodes_to_score: int | None = None
    pod_initial_backoff_seconds: int | None = None
    pod_max_backoff_seconds: int | None = None
    profiles: tuple[KubeProfile, ...] = (KubeProfile(),)
    extenders: tuple[dict[str, Any], ...] = ()
    delay_cache_until_active: bool | None = None


class Source(msgspec.Struct, frozen=True):
    """A file's content, and where in the file its parts are."""

    configuration: KubeConfiguration
    name: str
    root: yaml.Node

    def where(self, *steps: str | int) -> str:
        """`file:line` of a field, or of the deepest part of the path that is there."""
        return locate(self.name, self.root, list(steps))


def read(text: str, name: str) -> Source:
    """Raises ConfigurationError with file, line, field and fix."""
    document, root = read_yaml(text, source=name, expected=f"apiVersion: {API_VERSION}, kind: {KIND}")
    for field, expected in (("kind", KIND), ("apiVersion", API_VERSION)):
        if document.get(field) != expected:
            raise ConfigurationError(
                f"{locate(name, root, [field])}: {field} must be {expected}, got {document.get(field)!r}"
            )
    try:
        configuration = msgspec.convert(_without_nulls(document), KubeConfiguration)
    except msgspec.ValidationError as error:
        raise ConfigurationError(explain(str(error), name, root)) from error
    return Source(configuration, name, root)


def _without_nulls(value: Any) -> Any:
    """Empty lists of profiles are none, too (SetDefaults_KubeSchedulerConfiguration)."""
    if isinstance(value, dict):
        return {
            key: _without_nulls(item)
            for key, item in value.items()
            if item is not None and not (key == "profiles" and item == [])
        }
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
