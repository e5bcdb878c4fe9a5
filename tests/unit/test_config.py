"""The configuration file: what is accepted, and that every mistake is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from scheduler.config import (
    Configuration,
    ConfigurationError,
    GangsConfig,
    MaxHeldFraction,
    ProfileConfig,
    load,
    parse,
    parse_duration_s,
    split_address,
)

HEAD = "apiVersion: wholepod.io/v1alpha1\nkind: SchedulerConfiguration\n"


def test_defaults_are_kube_schedulers() -> None:
    configuration = parse(HEAD)
    assert configuration == Configuration()
    assert (configuration.client_connection.qps, configuration.client_connection.burst) == (50, 100)
    assert (configuration.pod_initial_backoff_seconds, configuration.pod_max_backoff_seconds) == (1, 10)
    election = configuration.leader_election
    assert (election.lease_duration_s, election.renew_deadline_s, election.retry_period_s) == (15, 10, 2)
    assert [profile.scheduler_name for profile in configuration.profiles] == ["wholepod"]
    assert configuration.bind_address == "127.0.0.1:10259"


def test_everything_said(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        HEAD
        + """
profiles:
- schedulerName: one
  preset: kube
  plugins:
    filter: {disabled: [{name: NodePorts}], enabled: [{name: Mine}]}
    score: {disabled: [{name: "*"}], enabled: [{name: MemoryFit, weight: 3}]}
  pluginConfig:
  - name: MemoryFit
    args: {objective: tight}
  gangs:
    strategies: [atomic, hoarding]
    defaultStrategy: hoarding
    maxHoldTimeout: 1h30m
    maxHeldFraction: {namespace: 0.1, cluster: 1}
    starvationAfter: 5m
    compensationDeadline: 30
- schedulerName: default-scheduler
leaderElection: {leaderElect: false, leaseDuration: 1m30s, renewDeadline: 20, retryPeriod: 500ms}
clientConnection: {kubeconfig: /etc/kubeconfig, qps: 5000, burst: 6000}
podInitialBackoffSeconds: 0.5
podMaxBackoffSeconds: 60
bindAddress: 0.0.0.0:443
tls: {certFile: cert.pem, keyFile: key.pem}
logging: {level: debug, format: json}
"""
    )
    configuration = load(file)
    one, default = configuration.profiles
    assert (one.effective_preset, default.effective_preset) == ("kube", "kube")
    assert [plugin.name for plugin in one.plugins.filter.disabled] == ["NodePorts"]
    assert [(plugin.name, plugin.weight) for plugin in one.plugins.score.enabled] == [("MemoryFit", 3)]
    assert one.plugin_config[0].args == {"objective": "tight"}
    assert one.gangs == GangsConfig(
        strategies=("atomic", "hoarding"),
        default_strategy="hoarding",
        max_hold_timeout_s=5400.0,
        max_held_fraction=MaxHeldFraction(namespace=0.1, cluster=1.0),
        starvation_after_s=300.0,
        compensation_deadline_s=30.0,
    )
    assert default.gangs == GangsConfig()
    election = configuration.leader_election
    assert (election.lease_duration_s, election.renew_deadline_s, election.retry_period_s) == (90, 20, 0.5)
    assert configuration.client_connection.kubeconfig == "/etc/kubeconfig"
    assert configuration.logging.level == "debug"


@pytest.mark.parametrize(
    ("name", "preset"), [("wholepod", "memory-fit"), ("default-scheduler", "kube"), ("other", "memory-fit")]
)
def test_the_name_of_a_profile_chooses_its_preset(name: str, preset: str) -> None:
    assert ProfileConfig(scheduler_name=name).effective_preset == preset


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("profile: []", "file:3: profile: unknown field"),
        ("clientConnection:\n  qps: 5\n  bust: 5", "file:5: clientConnection.bust: unknown field"),
        (
            "profiles:\n- schedulerName: a\n- schedulerName: b\n  plugin: {}",
            "file:6: profiles[1].plugin: unknown field",
        ),
        ("clientConnection:\n  qps: fast", "file:4: clientConnection.qps: expected `float`, got `str`"),
        ("clientConnection: {burst: 1.5}", "file:3: clientConnection.burst: expected `int`, got `float`"),
        ("profiles: {}", "file:3: profiles: expected `array`, got `object`"),
        ("profiles:\n- preset: best", "file:4: profiles[0].preset: invalid enum value 'best'"),
        ("logging: {level: loud}", "file:3: logging.level: invalid enum value 'loud'"),
        ("kind: KubeSchedulerConfiguration", "file:3: field 'kind' is set twice"),
        ("tls:\n  certFile: a\n  certFile: b", "file:5: field 'certFile' is set twice"),
        ("profiles:\n- {preset: kube, preset: kube}", "file:4: field 'preset' is set twice"),
        (
            "leaderElection:\n  leaseDuration: soon",
            "file:4: leaderElection.leaseDuration: 'soon' is not a duration (examples: 15s, 1m30s, 500ms)",
        ),
        (
            "profiles:\n- {}\n- gangs:\n    maxHoldTimeout: long",
            "file:6: profiles[1].gangs.maxHoldTimeout: 'long' is not a duration (examples: ",
        ),
        ("profiles: [{gangs: {strategies: [hope]}}]", "profiles[0].gangs.strategies[0]: invalid enum value"),
        ("profiles: [{gangs: []}]", "profiles[0].gangs: expected `object`, got `array`"),
        ("leaderElection: {leaseDuration: [1]}", "file:3: leaderElection.leaseDuration: expected `float`"),
        ("a: [", "file:3: not valid YAML"),
        ("\t", "file:3: not valid YAML"),
        ("? [a, b]\n: c", "file:3: not valid YAML"),
        ("--- {}", "file:3: not valid YAML"),
        ("1: 2", "file:3: '1' is no name of a field; put it in quotes?"),
        # Rules between fields.
        ("profiles: []", "file: profiles: at least one is needed"),
        ("profiles: [{schedulerName: ''}]", "file: profiles: schedulerName must not be empty"),
        ("profiles: [{}, {}]", "file: profiles: schedulerName wholepod is used twice"),
        (
            "leaderElection: {leaseDuration: 5s, renewDeadline: 5s}",
            "leaseDuration must exceed renewDeadline, and that retryPeriod (got 5, 5, 2 s)",
        ),
        ("leaderElection: {retryPeriod: 0s}", "(got 15, 10, 0 s)"),
        (
            "profiles: [{gangs: {strategies: []}}]",
            "gangs.strategies: at least one is needed",
        ),
        (
            "profiles: [{gangs: {strategies: [atomic, atomic]}}]",
            "profiles[0].gangs.strategies: one is there twice in atomic, atomic",
        ),
        (
            "profiles: [{gangs: {strategies: [hoarding, optimistic]}}]",
            "profiles[0].gangs.defaultStrategy must be one of hoarding, optimistic, got atomic",
        ),
        ("profiles: [{gangs: {maxHoldTimeout: 0s}}]", "gangs.maxHoldTimeout must be more than 0s, got 0s"),
        (
            "profiles: [{gangs: {starvationAfter: .nan}}]",
            "starvationAfter must be more than 0s, got nan",
        ),
        (
            "profiles: [{gangs: {compensationDeadline: .inf}}]",
            "compensationDeadline must be more",
        ),
        (
            "profiles: [{gangs: {maxHeldFraction: {namespace: 1.5}}}]",
            "profiles[0].gangs.maxHeldFraction.namespace must be 0 to 1, got 1.5",
        ),
        ("profiles: [{gangs: {maxHeldFraction: {cluster: .nan}}}]", "cluster must be 0 to 1, got nan"),
        ("clientConnection: {qps: 0}", "clientConnection.qps must be more than 0, got 0"),
        ("clientConnection: {qps: .nan}", "clientConnection.qps must be more than 0, got nan"),
        ("clientConnection: {burst: 0}", "clientConnection.burst must be at least 1, got 0"),
        ("podInitialBackoffSeconds: 0", "podInitialBackoffSeconds must be more than 0"),
        ("podInitialBackoffSeconds: 11", "at most podMaxBackoffSeconds (got 11 and 10)"),
        ("podMaxBackoffSeconds: .nan", "(got 1 and nan)"),
        ("bindAddress: 10259", "file:3: bindAddress: expected `str`, got `int`"),
        ("bindAddress: localhost", "bind address 'localhost' is not HOST:PORT"),
        ("bindAddress: 0.0.0.0:1", "bindAddress 0.0.0.0:1 is reachable from other machines"),
        ("tls: {certFile: a}", "tls: certFile and keyFile are needed together"),
        ("authorization: delegated", "authorization: delegated reads tokens"),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(HEAD + text, source="file")
    assert message in str(caught.value)
    assert str(caught.value).startswith("file") or message.startswith("bind address")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "file: expected a mapping with apiVersion: wholepod.io/v1alpha1, kind: SchedulerConfiguration"),
        ("[]", "file: expected a mapping"),
        ("just words", "file: expected a mapping"),
        ("{}", "file:1: apiVersion must be wholepod.io/v1alpha1, got None"),
        ("kind: x\napiVersion: v1", "file:2: apiVersion must be wholepod.io/v1alpha1, got 'v1'"),
        (
            "apiVersion: wholepod.io/v1alpha1\nkind: Pod",
            "file:2: kind must be SchedulerConfiguration, got 'Pod'",
        ),
    ],
)
def test_a_document_of_another_kind(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, source="file")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.write_bytes(b"\xff\xfe\xfd"), "it is not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_read(make: object, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    assert callable(make)
    make(path)
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert str(caught.value) == f"cannot read the configuration file {path}: {reason}"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15s", 15), ("1m30s", 90), ("2h", 7200), ("500ms", 0.5), ("1.5s", 1.5), ("1h2m3s4ms", 3723.004)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "15", "s", "-5s", "5 s", "1s 1m", "1d", "1e3s"])
def test_not_durations(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a duration"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:10259", ("127.0.0.1", 10259)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:443", ("::1", 443)),
        (":8080", ("127.0.0.1", 8080)),
    ],
)
def test_addresses(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["", "10259", "host", "host:", "::1:443", "host:65536", "host:1:2"])
def test_not_addresses(address: str) -> None:
    with pytest.raises(ConfigurationError, match="is not HOST:PORT"):
        split_address(address)


@pytest.mark.parametrize(
    ("address", "authorization", "delegated"),
    [
        ("127.0.0.1:1", "auto", False),
        ("[::1]:1", "auto", False),
        ("localhost:1", "delegated", True),
        ("0.0.0.0:1", "auto", True),
        ("[::]:1", "auto", True),
        ("0.0.0.0:1", "none", False),
    ],
)
def test_tokens_are_asked_for_where_others_can_ask(address: str, authorization: str, delegated: bool) -> None:
    text = f"bindAddress: '{address}'\ntls: {{certFile: c, keyFile: k}}\nauthorization: {authorization}"
    assert parse(HEAD + text).delegates_authorization is delegated
