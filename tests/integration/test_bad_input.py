"""Bad input, as an operator would meet it: the program runs, the exit code and the message are judged.

A message must name the thing that is wrong and what to do about it, in a line or two; nobody should have to
read a traceback to learn that a token has expired. Exit codes: 2 for usage and configuration, 3 for a
cluster that can't be used.
"""

import json
import re
import socket
import subprocess
from pathlib import Path

import pytest

from tests.cluster import ControlPlane
from tests.integration.forger import Forger
from tests.integration.harness import DEADLINE_S, WHOLEPOD, Scheduler
from tests.integration.rights import granted
from tests.integration.workbench import Workbench

HEAD = "apiVersion: wholepod.io/v1alpha1\nkind: SchedulerConfiguration\n"


def refusal(*flags: str) -> tuple[int, str]:
    """Exit code and message of a `wholepod run` that must not even start."""
    result = subprocess.run(
        [WHOLEPOD, "run", "--bind-address=127.0.0.1:0", "--leader-elect=false", *flags],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.returncode, result.stderr.strip()


def refusal_of_file(folder: Path, text: str, *flags: str) -> str:
    """The message about a configuration file, its path taken off."""
    file = folder / "config.yaml"
    file.write_text(text)
    code, message = refusal(f"--config={file}", *flags)
    assert code == 2
    assert len(message.splitlines()) == 1
    return message.replace(str(file), "FILE")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("profiles:\n- schedulerName: a\n  pluginz: {}\n", "FILE:5: profiles[0].pluginz: unknown field"),
        ("clientConnection:\n  qps: fast\n", "FILE:4: clientConnection.qps: expected `float`, got `str`"),
        ("clientConnection: {qps: 0}\n", "FILE: clientConnection.qps must be more than 0, got 0"),
        (
            "leaderElection:\n  leaseDuration: 15 parsecs\n",
            "FILE:4: leaderElection.leaseDuration: '15 parsecs' is not a duration "
            "(examples: 15s, 1m30s, 500ms)",
        ),
        ("profiles: []\nprofiles: []\n", "FILE:4: field 'profiles' is set twice"),
    ],
)
def test_a_configuration_file_that_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    assert refusal_of_file(tmp_path, HEAD + text) == f"wholepod: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n",
            "FILE:1: apiVersion must be wholepod.io/v1alpha1, got 'kubescheduler.config.k8s.io/v1'",
        ),
        (
            "apiVersion: wholepod.io/v1alpha1\nkind: Scheduler\n",
            "FILE:2: kind must be SchedulerConfiguration, got 'Scheduler'",
        ),
        (
            "just words\n",
            "FILE: expected a mapping with apiVersion: wholepod.io/v1alpha1, kind: SchedulerConfiguration",
        ),
        ("a: [\n", "FILE:2: not valid YAML: expected the node content, but found '<stream end>'"),
    ],
)
def test_a_file_that_is_something_else(tmp_path: Path, text: str, message: str) -> None:
    assert refusal_of_file(tmp_path, text) == f"wholepod: {message}"


@pytest.mark.parametrize(
    ("profile", "messages"),
    [
        (
            "plugins: {score: {enabled: [{name: MemoryFitt}]}}",
            [
                "profile mine: there is no plugin 'MemoryFitt'",
                "known plugins: DefaultPreemption, ImageLocality, InterPodAffinity, MemoryFit, ",
            ],
        ),
        (
            "pluginConfig: [{name: MemoryFit, args: {objective: tightest}}]",
            [
                "profile mine: plugin MemoryFit rejects its arguments: ",
                "objective must be one of tight, balanced, spread, expected, got 'tightest'",
            ],
        ),
        (
            "pluginConfig: [{name: NodeName, args: {strict: true}}]",
            ["profile mine: plugin NodeName rejects its arguments", "takes no arguments", "strict"],
        ),
        (
            "pluginConfig: [{name: NodeResourcesBalancedAllocation}]",
            [
                "profile mine: pluginConfig names NodeResourcesBalancedAllocation, "
                "which is not enabled in this profile"
            ],
        ),
    ],
)
def test_a_profile_that_makes_no_sense(
    shared_plane: ControlPlane, tmp_path: Path, profile: str, messages: list[str]
) -> None:
    text = f"{HEAD}profiles:\n- schedulerName: mine\n  {profile}\n"
    said = refusal_of_file(tmp_path, text, f"--kubeconfig={shared_plane.kubeconfig}")
    assert all(message in said for message in messages), said


def test_files_that_do_not_exist() -> None:
    code, message = refusal("--config=/nonexistent/config.yaml")
    assert code == 2
    assert (
        message
        == "wholepod: cannot read the configuration file /nonexistent/config.yaml: No such file or directory"
    )
    code, message = refusal("--kubeconfig=/nonexistent/kubeconfig")
    assert code == 2
    assert message == (
        "wholepod: no kubeconfig at /nonexistent/kubeconfig (--kubeconfig): "
        "give one with --kubeconfig FILE or $KUBECONFIG"
    )


def test_a_kubeconfig_that_is_broken(tmp_path: Path) -> None:
    broken = tmp_path / "kubeconfig"
    broken.write_text("{}")
    code, message = refusal(f"--kubeconfig={broken}")
    assert code == 2
    assert message.startswith(f"wholepod: kubeconfig {broken} cannot be used: ")
    assert "current-context" in message


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--kube-api-qqs=50", "No such option '--kube-api-qqs'"),
        ("--leader-elect=perhaps", "Invalid value for '--leader-elect': 'perhaps' is not a valid boolean"),
        ("--bind-address=here", "bind address 'here' is not HOST:PORT (example: 127.0.0.1:10259"),
        ("--kube-api-burst=0", "flags: clientConnection.burst must be at least 1, got 0"),
    ],
)
def test_a_flag_that_is_wrong(flag: str, message: str) -> None:
    code, said = refusal(flag)
    assert code == 2
    assert message in said


def test_a_port_that_is_taken(shared_plane: ControlPlane) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        code, message = refusal(f"--kubeconfig={shared_plane.kubeconfig}", f"--bind-address={address}")
    assert code == 2
    assert message.startswith(f"wholepod: cannot listen on {address}: ")
    assert "address already in use" in message
    assert message.endswith("choose another --bind-address (port 0 picks a free one)")


def test_a_server_that_does_not_answer(shared_plane: ControlPlane, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and never listens: connections are refused
        server = f"https://127.0.0.1:{closed.getsockname()[1]}"
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(shared_plane.kubeconfig.read_text().replace(shared_plane.server, server))
        code, message = refusal(f"--kubeconfig={kubeconfig}")
    assert code == 3
    assert message == (
        f"wholepod: cannot reach the API server at {server}: connection refused; "
        "is the server up and the kubeconfig's `server` right?"
    )


def test_a_server_that_is_not_trusted(shared_plane: ControlPlane, tmp_path: Path) -> None:
    config = json.loads(shared_plane.kubeconfig.read_text())
    del config["clusters"][0]["cluster"]["certificate-authority-data"]
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    code, message = refusal(f"--kubeconfig={kubeconfig}")
    assert code == 3
    assert message.startswith(f"wholepod: cannot trust the API server at {shared_plane.server}: ")
    assert "`certificate-authority`" in message


def test_a_token_that_is_not_valid_any_more(shared_plane: ControlPlane) -> None:
    code, message = refusal(f"--kubeconfig={shared_plane.kubeconfig_with_token('former', 'expired')}")
    assert code == 3
    assert "token or certificate rejected (expired?)" in message
    assert "renew the credentials in the kubeconfig" in message


NOT_ALWAYS_NEEDED = ("configmaps", "podgroups", "tokenreviews", "subjectaccessreviews")
"""By gangs alone, or where others than this machine may read metrics."""


def test_an_account_without_rights(shared_plane: ControlPlane) -> None:
    stranger = f"--kubeconfig={shared_plane.kubeconfig_for('stranger')}"
    # The profile that needs most.
    code, message = refusal(stranger, "--leader-elect=true", "--scheduler-name=default-scheduler")
    assert code == 3
    missing = re.fullmatch(
        "wholepod: the account that Wholepod runs as may not: (.*); grant it with a ClusterRole and binding "
        r"as in deploy/base/rbac.yaml \(`kubectl auth can-i --list --as=ACCOUNT` shows what it may do\)",
        message,
    )
    assert missing is not None, message
    assert set(missing[1].split(", ")) == {
        f"{verb} {resource}{'.' + group if group else ''}"
        for verb, resource, group in granted()
        if not resource.startswith(NOT_ALWAYS_NEEDED)
    }


def test_amounts_that_cannot_be_read_are_skipped(bench: Workbench, log: Path) -> None:
    """The API server stores amounts that no scheduler can count, and hands them out again."""
    uncountable = "1e9999"
    bench.node("node", memory="4Gi")
    bench.node("odd-node", memory=uncountable)
    bench.pod("odd-early", uncountable)
    with Scheduler("--leader-elect=false", kubeconfig=bench.plane.kubeconfig, log=log) as scheduler:
        bench.pod("odd-late", uncountable)
        bench.pod("good")
        assert bench.wait_bound("good") == ["node"]
        bench.barrier()
        skipped = {
            (record["resource"], record["name"], record["error"].partition(" ")[0])
            for record in scheduler.records("skipped an object that can't be read")
        }
        assert skipped == {
            ("nodes", "odd-node", f"'{uncountable}'"),
            ("pods", f"{bench.namespace}/odd-early", f"'{uncountable}'"),
            ("pods", f"{bench.namespace}/odd-late", f"'{uncountable}'"),
        }
        assert scheduler.metric("wholepod_unreadable_objects_total", resource="pods") == 2
        assert scheduler.metric("wholepod_unreadable_objects_total", resource="nodes") == 1
        # What gets a sound amount is taken up.
        bench.set_allocatable("odd-node", memory="8Gi", cpu="8", pods="10")
        bench.pod("bigger", "6Gi")
        assert bench.wait_bound("bigger") == ["odd-node"]
        assert bench.node_of("odd-early") == bench.node_of("odd-late") == ""
        assert scheduler.terminate() == 0


def test_objects_of_another_shape_are_skipped(bench: Workbench, log: Path) -> None:
    """No API server says such things; a forger between it and the scheduler does."""

    def forge(line: bytes) -> bytes:
        return line.replace(b'"nodeSelector":{"odd":"yes"}', b'"nodeSelector":["odd"]')

    bench.node("node", labels={"odd": "yes"})
    bench.pod("odd-early", nodeSelector={"odd": "yes"})
    with (
        Forger(bench.plane, forge) as forger,
        Scheduler("--leader-elect=false", kubeconfig=forger.kubeconfig(), log=log) as scheduler,
    ):
        bench.pod("odd-late", nodeSelector={"odd": "yes"})
        bench.pod("good")
        bench.wait_bound("good")
        skipped = scheduler.records("skipped an object that can't be read")
        assert {(record["resource"], record["name"]) for record in skipped} == {
            ("pods", f"{bench.namespace}/odd-early"),
            ("pods", f"{bench.namespace}/odd-late"),
        }
        assert all("spec.nodeSelector" in record["error"] for record in skipped)
        # As soon as it makes sense again it is a pod like any other.
        forger.forge = lambda line: line
        bench.api.patch(bench.path("odd-late"), {"metadata": {"labels": {"touched": "yes"}}})
        bench.wait_bound("odd-late")
        assert scheduler.terminate() == 0
