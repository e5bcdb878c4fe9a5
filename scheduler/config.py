"""The configuration file, shaped like KubeSchedulerConfiguration, as frozen values.

A typo in a scheduler's configuration must not turn into a default, so unknown fields, wrong types
and duplicate keys are errors that name the field and its line. Fields and defaults follow
kubescheduler.config.k8s.io/v1 where it has them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

API_VERSION = "wholepod.io/v1alpha1"
KIND = "SchedulerConfiguration"
DEFAULT_SCHEDULER_NAME = "wholepod"
PRESETS = ("kube", "memory-fit")


class ConfigurationError(ValueError):
    """Something in the configuration makes no sense; the text says what, where, and what would."""


class _Struct(
    msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True, omit_defaults=False
):
    """Base of all configuration structs: camelCase in the file, strict."""


class EnabledPlugin(_Struct, frozen=True):
    name: str
    weight: int | None = None


class DisabledPlugin(_Struct, frozen=True):
    name: str
    """A plugin's name, or "*" for all."""


class PluginSet(_Struct, frozen=True):
    """Changes to a preset's plugins: disabled ones go first, enabled ones are appended in order."""

    enabled: tuple[EnabledPlugin, ...] = ()
    disabled: tuple[DisabledPlugin, ...] = ()


class Plugins(_Struct, frozen=True):
    filter: PluginSet = PluginSet()
    post_filter: PluginSet = PluginSet()
    score: PluginSet = PluginSet()


class PluginConfig(_Struct, frozen=True):
    name: str
    args: dict[str, Any] = {}


StrategyName = Literal["atomic", "hoarding", "optimistic"]


class MaxHeldFraction(_Struct, frozen=True):
    """Of the cluster's memory; measured on what gangs hold at the moment."""

    namespace: float = 0.5
    cluster: float = 0.8


class GangsConfig(_Struct, frozen=True):
    """What the gangs of a profile may ask for."""

    strategies: tuple[StrategyName, ...] = ("atomic", "hoarding", "optimistic")
    default_strategy: StrategyName = "atomic"
    max_hold_timeout_s: float = msgspec.field(name="maxHoldTimeout", default=3600.0)
    max_held_fraction: MaxHeldFraction = MaxHeldFraction()
    starvation_after_s: float = msgspec.field(name="starvationAfter", default=60.0)
    compensation_deadline_s: float = msgspec.field(name="compensationDeadline", default=60.0)


class ProfileConfig(_Struct, frozen=True):
    scheduler_name: str = DEFAULT_SCHEDULER_NAME
    preset: Literal["kube", "memory-fit"] | None = None
    """Plugins to start from; default: kube for `default-scheduler`, memory-fit for other names."""
    plugins: Plugins = Plugins()
    plugin_config: tuple[PluginConfig, ...] = ()
    gangs: GangsConfig = GangsConfig()

    @property
    def effective_preset(self) -> str:
        return self.preset or ("kube" if self.scheduler_name == "default-scheduler" else "memory-fit")


class LeaderElection(_Struct, frozen=True):
    leader_elect: bool = True
    lease_duration_s: float = msgspec.field(name="leaseDuration", default=15.0)
    renew_deadline_s: float = msgspec.field(name="renewDeadline", default=10.0)
    retry_period_s: float = msgspec.field(name="retryPeriod", default=2.0)
    resource_name: str = "wholepod"
    resource_namespace: str = "kube-system"


class ClientConnection(_Struct, frozen=True):
    kubeconfig: str = ""
    qps: float = 50.0
    burst: int = 100


class Tls(_Struct, frozen=True):
    cert_file: str = ""
    key_file: str = ""


class Logging(_Struct, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"
    """auto: console on a terminal, JSON elsewhere."""


class Configuration(_Struct, frozen=True):
    api_version: str = API_VERSION
    kind: str = KIND
    profiles: tuple[ProfileConfig, ...] = (ProfileConfig(),)
    leader_election: LeaderElection = LeaderElection()
    client_connection: ClientConnection = ClientConnection()
    pod_initial_backoff_seconds: float = 1.0
    pod_max_backoff_seconds: float = 10.0
    bind_address: str = "127.0.0.1:10259"
    tls: Tls = Tls()
    authorization: Literal["auto", "delegated", "none"] = "auto"
    """Who may ask at `bind_address`. auto: delegated where others than this machine can."""
    logging: Logging = Logging()

    @property
    def delegates_authorization(self) -> bool:
        return self.authorization == "delegated" or (self.authorization == "auto" and not self.loopback)

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches `bind_address`."""
        return split_address(self.bind_address)[0] in ("127.0.0.1", "::1", "localhost")


def load(path: Path) -> Configuration:
    """Reads and checks a file. Raises ConfigurationError with file, line, field and fix."""
    return parse(read_text(path), source=str(path))


def read_text(path: Path) -> str:
    """Raises ConfigurationError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(f"cannot read the configuration file {path}: {reason}") from error


def parse(text: str, *, source: str = "configuration") -> Configuration:
    """Checks a document. Raises ConfigurationError."""
    document, root = read_yaml(text, source=source, expected=f"apiVersion: {API_VERSION}, kind: {KIND}")
    for field, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if document.get(field) != expected:
            raise ConfigurationError(
                f"{locate(source, root, [field])}: {field} must be {expected}, got {document.get(field)!r}"
            )
    _parse_durations(document, root, source)
    try:
        configuration = msgspec.convert(document, Configuration)
    except msgspec.ValidationError as error:
        raise ConfigurationError(explain(str(error), source, root)) from error
    return checked(configuration, source=source)


def read_yaml(text: str, *, source: str, expected: str) -> tuple[dict[str, Any], yaml.Node]:
    """A mapping, and the same with line numbers. Raises ConfigurationError."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark is not None else source
        raise ConfigurationError(f"{where}: not valid YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(document, dict) or root is None:
        raise ConfigurationError(f"{source}: expected a mapping with {expected}")
    _refuse_bad_keys(root, source)
    return document, root


def checked(configuration: Configuration, *, source: str = "configuration") -> Configuration:
    """Rules between fields; also run after command-line flags have overridden some."""

    def require(condition: bool, text: str) -> None:
        if not condition:
            raise ConfigurationError(f"{source}: {text}")

    names = [profile.scheduler_name for profile in configuration.profiles]
    require(bool(names), "profiles: at least one is needed")
    require(all(names), "profiles: schedulerName must not be empty")
    repeated = sorted({name for name in names if names.count(name) > 1})
    require(not repeated, f"profiles: schedulerName {', '.join(repeated)} is used twice")
    for i, profile in enumerate(configuration.profiles):
        wrong = _wrong_with(profile.gangs)
        require(not wrong, f"profiles[{i}].gangs.{wrong}")
    election = configuration.leader_election
    require(
        election.lease_duration_s > election.renew_deadline_s > election.retry_period_s > 0,
        "leaderElection: leaseDuration must exceed renewDeadline, and that retryPeriod "
        f"(got {election.lease_duration_s:g}, {election.renew_deadline_s:g}, {election.retry_period_s:g} s)",
    )
    connection = configuration.client_connection
    require(connection.qps > 0, f"clientConnection.qps must be more than 0, got {connection.qps:g}")
    require(connection.burst >= 1, f"clientConnection.burst must be at least 1, got {connection.burst}")
    initial, maximum = configuration.pod_initial_backoff_seconds, configuration.pod_max_backoff_seconds
    require(
        0 < initial <= maximum,
        "podInitialBackoffSeconds must be more than 0 and at most podMaxBackoffSeconds "
        f"(got {initial:g} and {maximum:g})",
    )
    loopback, tls = configuration.loopback, configuration.tls
    require(bool(tls.cert_file) == bool(tls.key_file), "tls: certFile and keyFile are needed together")
    require(
        bool(tls.cert_file) or loopback,
        f"bindAddress {configuration.bind_address} is reachable from other machines: "
        "set tls.certFile and tls.keyFile, or bind to 127.0.0.1",
    )
    require(
        bool(tls.cert_file) or configuration.authorization != "delegated",
        "authorization: delegated reads tokens, which must not be sent in the clear: "
        "set tls.certFile and tls.keyFile",
    )
    return configuration


def _wrong_with(gangs: GangsConfig) -> str:
    """What makes no sense, if anything does not."""
    names = gangs.strategies
    if not names:
        return "strategies: at least one is needed"
    if len(set(names)) < len(names):
        return f"strategies: one is there twice in {', '.join(names)}"
    if gangs.default_strategy not in names:
        return f"defaultStrategy must be one of {', '.join(names)}, got {gangs.default_strategy}"
    for field, seconds in (
        ("maxHoldTimeout", gangs.max_hold_timeout_s),
        ("starvationAfter", gangs.starvation_after_s),
        ("compensationDeadline", gangs.compensation_deadline_s),
    ):
        if not 0 < seconds < math.inf:
            return f"{field} must be more than 0s, got {seconds:g}s"
    held = gangs.max_held_fraction
    for field, fraction in (("namespace", held.namespace), ("cluster", held.cluster)):
        if not 0 <= fraction <= 1:
            return f"maxHeldFraction.{field} must be 0 to 1, got {fraction:g}"
    return ""


def split_address(address: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` in two. Raises ConfigurationError."""
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]*)):(\d{1,5})", address)
    if match is None or int(match.group(3)) > 65535:
        raise ConfigurationError(
            f"bind address {address!r} is not HOST:PORT (example: 127.0.0.1:10259, port 0 picks a free one)"
        )
    return match.group(1) or match.group(2) or "127.0.0.1", int(match.group(3))


_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|µs|ns)")
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_ELECTION_DURATIONS = ("leaseDuration", "renewDeadline", "retryPeriod")
_GANG_DURATIONS = ("maxHoldTimeout", "starvationAfter", "compensationDeadline")
DURATION_FIELDS = (*_ELECTION_DURATIONS, *_GANG_DURATIONS)


def parse_duration_s(text: str) -> float:
    """A duration in Go's notation (15s, 1m30s, 500ms) in seconds. Raises ConfigurationError."""
    if not re.fullmatch(f"({_DURATION.pattern})+", text):
        raise ConfigurationError(f"{text!r} is not a duration (examples: 15s, 1m30s, 500ms)")
    return sum(float(amount) * _UNITS_S[unit] for amount, unit in _DURATION.findall(text))


def _parse_durations(document: dict[str, Any], root: yaml.Node, source: str) -> None:
    """In place. What is of a wrong type is left for whoever converts it."""
    _parse_durations_in(document, ["leaderElection"], _ELECTION_DURATIONS, root, source)
    profiles = document.get("profiles")
    for i, profile in enumerate(profiles if isinstance(profiles, list) else ()):
        if isinstance(profile, dict):
            _parse_durations_in(profile, ["profiles", i, "gangs"], _GANG_DURATIONS, root, source)


def _parse_durations_in(
    parent: dict[str, Any], path: list[str | int], fields: Sequence[str], root: yaml.Node, source: str
) -> None:
    section = parent.get(str(path[-1]))
    if not isinstance(section, dict):
        return
    for field in fields:
        if isinstance(section.get(field), str):
            try:
                section[field] = parse_duration_s(section[field])
            except ConfigurationError as error:
                steps = [*path, field]
                where = locate(source, root, steps)
                raise ConfigurationError(f"{where}: {dotted(steps)}: {error}") from error


_KEY_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")


def _refuse_bad_keys(node: yaml.Node, source: str) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            where = f"{source}:{key.start_mark.line + 1}"
            if key.tag not in _KEY_TAGS:
                raise ConfigurationError(f"{where}: {key.value!r} is no name of a field; put it in quotes?")
            if key.value in seen:
                raise ConfigurationError(f"{where}: field {key.value!r} is set twice")
            seen.add(key.value)
            _refuse_bad_keys(value, source)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_bad_keys(value, source)


def explain(message: str, source: str, root: yaml.Node) -> str:
    """msgspec's "Object contains unknown field `x` - at `$.a[0]`" with file, line and dotted path."""
    match = re.fullmatch(r"(.*?)(?: - at `(.*?)`)?", message, re.DOTALL)
    text, path = (match.group(1), match.group(2) or "$") if match else (message, "$")
    steps: list[str | int] = [
        int(index) if index else name for name, index in re.findall(r"\.([A-Za-z_]\w*)|\[(\d+)\]", path)
    ]
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", text)
    if unknown:
        steps.append(unknown.group(1))
        text = "unknown field"
    elif text.startswith(("Expected", "Invalid")):
        text = text[0].lower() + text[1:]
    where = dotted(steps)
    return f"{locate(source, root, steps)}: {where + ': ' if where else ''}{text}"


def dotted(steps: list[str | int]) -> str:
    """A path as people write it: profiles[0].gangs."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")


def locate(source: str, root: yaml.Node, steps: list[str | int] | list[str]) -> str:
    """`file:line` of the deepest part of a path that exists."""
    node, line = root, root.start_mark.line
    for step in steps:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == step]
            if not found:
                break
            key, node = found[0]
            line = key.start_mark.line
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line
        else:
            break
    return f"{source}:{line + 1}"
