"""Converting kube-scheduler's configuration: what comes out, what is said to be lost, what is refused.

That the plugins of a converted profile are those that kube-scheduler would run is tested against the real
one in tests/parity/test_convert.py.
"""

from __future__ import annotations

import json
import textwrap
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from scheduler.cli import main
from scheduler.config import Configuration, ConfigurationError, LeaderElection, ProfileConfig, parse
from scheduler.convert import convert
from scheduler.core.profile import Profile
from scheduler.plugins.profiles import build_profile

HEAD = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"


def converted(text: str) -> tuple[Configuration, list[str]]:
    """The configuration as our loader reads it, and what was noted."""
    document, notes = convert(HEAD + textwrap.dedent(text), source="file")
    return parse(yaml.safe_dump(document)), [str(note) for note in notes]


def built(text: str) -> tuple[Profile, list[str]]:
    configuration, notes = converted(text)
    [profile] = configuration.profiles
    return build_profile(profile), notes


def weights(profile: Profile) -> dict[str, int]:
    return {score.plugin.name: score.weight for score in profile.scores}


DEFAULT = build_profile(ProfileConfig(scheduler_name="default-scheduler"))


def test_an_empty_configuration_is_the_default_scheduler() -> None:
    for text in ("", "profiles: []\n", "profiles:\n", "profiles: [{}]\n"):
        configuration, notes = converted(text)
        assert notes == []
        assert configuration == Configuration(
            profiles=(ProfileConfig(scheduler_name="default-scheduler", preset="kube"),),
            leader_election=LeaderElection(resource_name="kube-scheduler"),
        )


def test_values_are_taken_over() -> None:
    configuration, notes = converted(
        """
        leaderElection: {leaderElect: false, leaseDuration: 1m0s, renewDeadline: 40s, retryPeriod: 500ms,
                         resourceLock: leases, resourceName: mine, resourceNamespace: here}
        clientConnection: {kubeconfig: /etc/kubeconfig, qps: 200, burst: 400, contentType: application/json}
        podInitialBackoffSeconds: 2
        podMaxBackoffSeconds: 20
        percentageOfNodesToScore: 100
        enableProfiling: false
        """
    )
    assert notes == []
    election, connection = configuration.leader_election, configuration.client_connection
    assert election == LeaderElection(
        leader_elect=False,
        lease_duration_s=60,
        renew_deadline_s=40,
        retry_period_s=0.5,
        resource_name="mine",
        resource_namespace="here",
    )
    assert (connection.kubeconfig, connection.qps, connection.burst) == ("/etc/kubeconfig", 200, 400)
    assert (configuration.pod_initial_backoff_seconds, configuration.pod_max_backoff_seconds) == (2, 20)


def test_zeros_are_defaults_as_in_go() -> None:
    configuration, notes = converted(
        """
        leaderElection: {leaseDuration: 0s, resourceName: ""}
        clientConnection: {qps: 0, burst: 0, kubeconfig: ""}
        """
    )
    assert notes == []
    assert configuration.leader_election == LeaderElection(resource_name="kube-scheduler")
    assert configuration.client_connection == Configuration().client_connection


# The shapes of https://kubernetes.io/docs/reference/scheduling/config/.


def test_a_score_plugin_in_place_of_another() -> None:
    profile, notes = built(
        """
        profiles:
          - plugins:
              score:
                disabled:
                - name: PodTopologySpread
                enabled:
                - name: MyCustomPluginA
                  weight: 2
                - name: MyCustomPluginB
                  weight: 1
        """
    )
    assert weights(profile) == {n: w for n, w in weights(DEFAULT).items() if n != "PodTopologySpread"}
    assert "PodTopologySpread" in [plugin.name for plugin in profile.filters]
    assert [note.split(": ", 2)[:2] for note in notes] == [
        ["file:10", "profiles[0].plugins.score.enabled[0]"],
        ["file:12", "profiles[0].plugins.score.enabled[1]"],
    ]
    assert "there is no plugin MyCustomPluginA" in notes[0]


def test_a_profile_without_scoring_beside_the_default_one() -> None:
    configuration, notes = converted(
        """
        profiles:
          - schedulerName: default-scheduler
          - schedulerName: no-scoring-scheduler
            plugins:
              preScore:
                disabled:
                - name: '*'
              score:
                disabled:
                - name: '*'
        """
    )
    assert notes == []
    default, without = map(build_profile, configuration.profiles)
    assert weights(default) == weights(DEFAULT)
    assert (without.scheduler_name, weights(without)) == ("no-scoring-scheduler", {})
    assert len(without.filters) == len(default.filters)


def test_multi_point() -> None:
    profile, notes = built(
        """
        profiles:
          - plugins:
              multiPoint:
                disabled:
                - name: ImageLocality
                - name: NodePorts
                enabled:
                - name: MemoryFit
                  weight: 3
                - name: NodeAffinity
                  weight: 9
              score:
                disabled:
                - name: NodeAffinity
        """
    )
    assert notes == []
    expected = {**weights(DEFAULT), "MemoryFit": 3}
    for name in ("ImageLocality", "NodeAffinity"):
        del expected[name]
    assert weights(profile) == expected
    default = [plugin.name for plugin in DEFAULT.filters]
    assert [plugin.name for plugin in profile.filters] == [name for name in default if name != "NodePorts"]


@pytest.mark.parametrize("point", ["postFilter", "multiPoint"])
def test_without_preemption(point: str) -> None:
    assert [plugin.name for plugin in DEFAULT.post_filters] == ["DefaultPreemption"]
    profile, notes = built(
        f"profiles: [{{plugins: {{{point}: {{disabled: [{{name: DefaultPreemption}}]}}}}}}]"
    )
    assert notes == []
    assert profile.post_filters == []


def test_filters_in_another_order() -> None:
    profile, notes = built(
        """
        profiles:
          - plugins:
              filter:
                enabled: [{name: InterPodAffinity}, {name: NodeName}]
        """
    )
    assert notes == []
    names = [plugin.name for plugin in profile.filters]
    assert names[:4] == ["UnsupportedRules", "InterPodAffinity", "NodeName", "NodeUnschedulable"]
    assert sorted(names) == sorted(plugin.name for plugin in DEFAULT.filters)


def test_arguments_of_plugins() -> None:
    configuration, notes = converted(
        """
        profiles:
          - pluginConfig:
              - name: NodeResourcesFit
                args:
                  apiVersion: kubescheduler.config.k8s.io/v1
                  kind: NodeResourcesFitArgs
                  ignoredResources: null
                  scoringStrategy:
                    type: RequestedToCapacityRatio
                    resources: [{name: memory, weight: 3}]
                    requestedToCapacityRatio:
                      shape: [{utilization: 0, score: 0}, {utilization: 100, score: 10}]
              - name: PodTopologySpread
                args:
                  defaultConstraints:
                    - {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}
                  defaultingType: List
              - name: NodeAffinity
                args:
                  addedAffinity:
                    requiredDuringSchedulingIgnoredDuringExecution:
                      nodeSelectorTerms:
                      - matchExpressions: [{key: pool, operator: In, values: [foo]}]
              - name: DefaultPreemption
                args: {minCandidateNodesPercentage: 20, minCandidateNodesAbsolute: 50}
              - name: SomethingElse
                args: {a: 1}
        """
    )
    [profile] = configuration.profiles
    build_profile(profile)
    args = {entry.name: entry.args for entry in profile.plugin_config}
    assert list(args) == ["NodeResourcesFit", "PodTopologySpread", "NodeAffinity", "DefaultPreemption"]
    assert args["NodeResourcesFit"]["scoringStrategy"]["resources"] == [{"name": "memory", "weight": 3}]
    assert [note.split(": ")[1] for note in notes] == ["profiles[0].pluginConfig[4]"]


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("parallelism: 16", "parallelism: decisions are made in one thread, on all nodes at once"),
        ("percentageOfNodesToScore: 0", "percentageOfNodesToScore: all nodes are looked at, always"),
        (
            "profiles: [{percentageOfNodesToScore: 50}]",
            "profiles[0].percentageOfNodesToScore: all nodes are looked at, always",
        ),
        ("enableProfiling: true", "enableProfiling: there are no profiling endpoints"),
        ("enableContentionProfiling: true", "enableContentionProfiling: there are no profiling endpoints"),
        (
            "delayCacheUntilActive: true",
            "delayCacheUntilActive: a process that waits for the lease follows the cluster",
        ),
        (
            "extenders: [{urlPrefix: http://gpu/, filterVerb: filter}]",
            "extenders[0]: no extender is called, and so not http://gpu/",
        ),
        (
            "healthzBindAddress: 0.0.0.0:10251",
            "healthzBindAddress: not in kube-scheduler's v1 either; both are served at bindAddress",
        ),
        (
            "metricsBindAddress: 0.0.0.0:10251",
            "metricsBindAddress: not in kube-scheduler's v1 either; both are served at bindAddress",
        ),
        (
            "leaderElection: {resourceLock: configmaps}",
            "leaderElection.resourceLock: the lock is always a Lease",
        ),
        (
            "clientConnection: {contentType: application/vnd.kubernetes.protobuf}",
            "clientConnection.contentType: the API server is always asked for JSON",
        ),
        (
            "clientConnection: {qps: -1}",
            "clientConnection.qps: no limit can't be said: 10000 writes a second instead",
        ),
        (
            "profiles: [{plugins: {queueSort: {disabled: [{name: '*'}], enabled: [{name: Mine}]}}}]",
            "profiles[0].plugins.queueSort.enabled[0]: Mine has no equivalent: "
            "pods are always tried by priority, then by age",
        ),
        (
            "profiles: [{plugins: {multiPoint: {disabled: [{name: SchedulingGates}]}}}]",
            "profiles[0].plugins.multiPoint.disabled: SchedulingGates can't be disabled: "
            "pods with scheduling gates always wait",
        ),
        (
            "profiles: [{plugins: {bind: {enabled: [{name: MyBinder}]}}}]",
            "profiles[0].plugins.bind.enabled[0]: MyBinder has no equivalent: "
            "pods are always bound through the API server",
        ),
        (
            "profiles: [{plugins: {preFilter: {disabled: [{name: NodePorts}]}}}]",
            "profiles[0].plugins.preFilter: NodePorts: "
            "what a plugin does there comes and goes with its filter",
        ),
        (
            "profiles: [{plugins: {postFilter: {enabled: [{name: MyPreemption}]}}}]",
            "profiles[0].plugins.postFilter.enabled[0]: there is no plugin MyPreemption: "
            "write it for Wholepod and install it (docs/plugins.md)",
        ),
        (
            "profiles: [{plugins: {permit: {enabled: [{name: Coscheduling}]}}}]",
            "profiles[0].plugins.permit: there is no such extension point",
        ),
        (
            "profiles: [{plugins: {score: {disabled: [{name: ImageLocality}]}},"
            " pluginConfig: [{name: ImageLocality}]}]",
            "profiles[0].pluginConfig[0]: ImageLocality is not enabled in this profile",
        ),
        (
            "profiles: [{pluginConfig: [{name: DynamicResources, args: {}}]}]",
            "profiles[0].pluginConfig[0]: DynamicResources takes no arguments here",
        ),
    ],
)
def test_what_is_lost_is_named(text: str, note: str) -> None:
    _, notes = converted(text)
    assert f"file:3: {note}" in notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "apiVersion: kubescheduler.config.k8s.io/v1beta3\nkind: KubeSchedulerConfiguration\n",
            "file:1: apiVersion must be kubescheduler.config.k8s.io/v1, "
            "got 'kubescheduler.config.k8s.io/v1beta3'",
        ),
        (
            "apiVersion: wholepod.io/v1alpha1\nkind: SchedulerConfiguration\n",
            "file:2: kind must be KubeSchedulerConfiguration, got 'SchedulerConfiguration'",
        ),
        ("- a\n", "file: expected a mapping with apiVersion: kubescheduler.config.k8s.io/v1, "),
        ("a: [\n", "file:2: not valid YAML"),
        (HEAD + "algorithmSource: {}\n", "file:3: algorithmSource: unknown field"),
        (
            HEAD + "profiles:\n- plugins:\n    scores: {}\n",
            "file:5: profiles[0].plugins.scores: unknown field",
        ),
        (
            HEAD + "podMaxBackoffSeconds: soon\n",
            "file:3: podMaxBackoffSeconds: expected `int | null`, got `str`",
        ),
        (
            HEAD + "podMaxBackoffSeconds: 1\npodMaxBackoffSeconds: 2\n",
            "file:4: field 'podMaxBackoffSeconds' is set",
        ),
        (
            HEAD + "profiles:\n- schedulerName: a\n- plugins: {}\n",
            "file:5: profiles[1]: several profiles need a schedulerName each",
        ),
        (
            HEAD + "profiles:\n- plugins:\n    score:\n      enabled: [{name: A}, {name: A}]\n",
            "file:6: profiles[0].plugins.score.enabled: A is there twice",
        ),
        (
            HEAD + "leaderElection:\n  leaseDuration: soon\n",
            "file:4: leaderElection.leaseDuration: 'soon' is not a duration",
        ),
        (HEAD + "leaderElection: {leaseDuration: 5s}\n", "file: leaderElection: leaseDuration must exceed"),
        (
            HEAD + "profiles:\n- pluginConfig: [{name: NodeAffinity, args: {affinity: {}}}]\n",
            "file:4: profile default-scheduler: plugin NodeAffinity rejects its arguments: affinity: unknown",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        convert(text, source="file")
    assert str(caught.value).startswith(message)


# ---- the command


def run(*args: str, given: str | None = None) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["config", "convert", *args], input=given)
    return result.exit_code, result.stdout, result.stderr


def test_the_command(tmp_path: Any) -> None:
    file = tmp_path / "kube.yaml"
    file.write_text(HEAD + "parallelism: 4\nprofiles: [{schedulerName: mine}]\n")
    code, out, err = run(str(file))
    assert code == 0
    assert [profile.scheduler_name for profile in parse(out).profiles] == ["mine"]
    assert err == f"warning: {file}:3: parallelism: decisions are made in one thread, on all nodes at once\n"
    code, as_json, _ = run("-o", "json", str(file))
    assert code == 0
    assert json.loads(as_json) == yaml.safe_load(out)
    assert run("-", given=file.read_text())[1] == out


def test_the_command_on_what_can_not_be_read(tmp_path: Any) -> None:
    code, out, err = run(str(tmp_path / "absent.yaml"))
    assert (code, out) == (2, "")
    assert "cannot read the configuration file" in err
    code, out, err = run("-", given="kind: Pod\n")
    assert (code, out) == (2, "")
    assert err.startswith("wholepod: standard input:1: kind must be KubeSchedulerConfiguration")
