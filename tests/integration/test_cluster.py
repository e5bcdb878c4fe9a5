"""The embedded control plane: what every other integration test stands on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import Api, ApiError, ClusterError, ControlPlane, node_manifest, pod_manifest, sources
from tests.cluster.assets import PROGRAMS, asked_minor, cache_folder, older_minors, pin
from tests.cluster.build import build
from tests.cluster.planes import start_ticks

REPOSITORY = Path(__file__).parents[2]
DEADLINE_S = 60.0
WORKLOAD_VERSIONS = {"1.35": "v1alpha1", "1.36": "v1alpha2", None: "v1beta1"}
OFF_BY_DEFAULT = f"scheduling.k8s.io/{WORKLOAD_VERSIONS[asked_minor()]}"
"""An API version that is served when a gate and `--runtime-config` say so."""


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until `holds`; a test that never gets there fails after a deadline far beyond any normal wait."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def gone(pids: dict[str, int]) -> bool:
    return all(start_ticks(pid) is None for pid in pids.values())


def pod_phase(plane: ControlPlane, name: str) -> str:
    phase: str = plane.api.get(f"/api/v1/namespaces/default/pods/{name}")["status"]["phase"]
    return phase


@pytest.fixture(scope="module")
def bare() -> Iterator[ControlPlane]:
    """The smallest plane: etcd and the API server."""
    with ControlPlane(controller_manager=False, users={"jane": ["viewers"]}) as plane:
        yield plane


def test_says_the_pinned_version(bare: ControlPlane) -> None:
    major, minor, patch = pin("kube-apiserver").pinned
    version = bare.api.get("/version")
    assert version["gitVersion"] == f"v{major}.{minor}.{patch}"
    assert (version["major"], version["minor"]) == (str(major), str(minor))


def test_creates_lists_and_counts(bare: ControlPlane) -> None:
    seen = 0

    def one_more() -> None:
        nonlocal seen
        seen += 1

    nodes = [node_manifest(f"many-{n}", memory="1280Mi", labels={"set": "many"}) for n in range(60)]
    bare.api.create_many(nodes, on_created=one_more)
    assert seen == 60
    assert bare.api.count("/api/v1/nodes", labelSelector="set=many") == 60
    names = {node["metadata"]["name"] for node in bare.api.items("/api/v1/nodes", limit="7")}
    assert {f"many-{n}" for n in range(60)} <= names
    assert bare.api.count("/api/v1/nodes") == len(names)
    assert bare.api.get("/api/v1/nodes/many-0")["status"]["allocatable"]["memory"] == "1280Mi"
    with pytest.raises(ApiError, match="already exists") as caught:
        bare.api.create_many(nodes)
    assert (caught.value.status, caught.value.reason) == (409, "AlreadyExists")


def test_a_pod_needs_no_service_account_without_a_controller_manager(bare: ControlPlane) -> None:
    stored = bare.api.create(pod_manifest("early", {"memory": "64Mi"}, priority=0))
    assert stored["spec"]["schedulerName"] == "wholepod"
    assert "early" in bare.kubectl("get", "pods", "--output=name")


def test_users_may_do_what_rbac_says(bare: ControlPlane) -> None:
    for name in ("stranger", "jane"):
        with Api.from_kubeconfig(bare.kubeconfig_for(name)) as api, pytest.raises(ApiError) as caught:
            api.get("/api/v1/pods")
        assert (caught.value.status, caught.value.reason) == (403, "Forbidden")
    bare.kubectl("create", "clusterrole", "pod-viewer", "--verb=list", "--resource=pods")
    bare.kubectl("create", "clusterrolebinding", "viewers", "--clusterrole=pod-viewer", "--group=viewers")
    with Api.from_kubeconfig(bare.kubeconfig_for("jane")) as api:
        eventually(lambda: allowed(api))
    with pytest.raises(ClusterError, match=r"nodes is forbidden: User \"stranger\""):
        bare.kubectl("get", "nodes", user="stranger")


def allowed(api: Api) -> bool:
    try:
        api.get("/api/v1/pods")
    except ApiError:
        return False
    return True


def test_a_token_that_is_not_valid_is_refused(bare: ControlPlane) -> None:
    kubeconfig = bare.kubeconfig_with_token("former", "this-token-is-no-longer-valid")
    with Api.from_kubeconfig(kubeconfig) as api, pytest.raises(ApiError) as caught:
        api.get("/api/v1/pods")
    assert caught.value.status == 401


@pytest.mark.parametrize("how", [ControlPlane.kill_apiserver, ControlPlane.stop_apiserver])
def test_the_api_server_comes_back_with_its_data(
    bare: ControlPlane, how: Callable[[ControlPlane], None]
) -> None:
    name = how.__name__.replace("_", "-")
    bare.api.create(node_manifest(name))
    server, before = bare.server, bare.pids()
    how(bare)
    assert bare.pids() == {"etcd": before["etcd"]}
    with pytest.raises(OSError, match="refused"):
        bare.api.get("/version")
    bare.start_apiserver()
    assert bare.server == server
    assert bare.pids()["kube-apiserver"] != before["kube-apiserver"]
    assert bare.api.get(f"/api/v1/nodes/{name}")["metadata"]["uid"]


def test_two_stand_side_by_side_and_leave_nothing(bare: ControlPlane) -> None:
    with ControlPlane(controller_manager=False) as other:
        other.api.create(node_manifest("only-here"))
        with pytest.raises(ApiError, match="not found"):
            bare.api.get("/api/v1/nodes/only-here")
        folder, pids = other.folder, other.pids()
        assert set(pids) == {"etcd", "kube-apiserver"}
        assert not gone(pids)
    assert gone(pids)
    assert not folder.exists()
    assert bare.api.text("/readyz") == "ok"


def test_everything_together_runs_a_pod_and_honours_deletion() -> None:
    with ControlPlane(
        kwok=True,
        node_lifecycle=True,
        scheduler=True,
        feature_gates={"GenericWorkload": True},
        runtime_config={OFF_BY_DEFAULT: True},
    ) as plane:
        assert set(plane.pids()) == set(PROGRAMS)
        plane.api.create(node_manifest("worker"))
        # Tainted until the node lifecycle controller has seen it ready.
        eventually(lambda: "taints" not in plane.api.get("/api/v1/nodes/worker")["spec"])
        plane.api.create(
            pod_manifest("app", {"memory": "1Gi"}, scheduler_name="default-scheduler", priority=0)
        )
        eventually(lambda: pod_phase(plane, "app") == "Running")
        plane.kubectl("delete", "pod", "app", "--grace-period=1")
        with pytest.raises(ApiError, match="not found"):
            plane.api.get("/api/v1/namespaces/default/pods/app")
        served = plane.api.get(f"/apis/{OFF_BY_DEFAULT}")["resources"]
        assert "workloads" in {resource["name"] for resource in served}


def test_a_program_that_does_not_start_is_explained_and_cleaned_up(tmp_path: Path) -> None:
    folder = tmp_path / "plane"
    with pytest.raises(ClusterError, match=r"kube-apiserver ended with code 1(.|\n)*gate: NoSuchGate"):
        ControlPlane(controller_manager=False, feature_gates={"NoSuchGate": True}, folder=folder).start()
    assert not folder.exists()


def test_an_owner_that_is_killed_leaves_nothing() -> None:
    program = (
        "import json, sys, time\n"
        "from tests.cluster import ControlPlane\n"
        "with ControlPlane(controller_manager=False) as plane:\n"
        "    print(json.dumps([str(plane.folder), plane.pids()]), flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        folder, pids = json.loads(owner.stdout.readline())
        assert not gone(pids)
        owner.send_signal(signal.SIGKILL)
    eventually(lambda: gone(pids) and not Path(folder).exists())


def cli(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.cluster", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "XDG_STATE_HOME": str(home)},
        capture_output=True,
        text=True,
    )


def test_command_line(tmp_path: Path) -> None:
    up = ("up", "--no-controller-manager", "--no-kwok", "--nodes", "2:4:32Gi", "--nodes=1:1:1280Mi", "-ojson")
    started = cli(tmp_path, *up)
    assert started.returncode == 0, started.stderr
    record = json.loads(started.stdout)
    try:
        again = cli(tmp_path, *up)
        assert (again.returncode, again.stdout) == (3, "")
        assert "up already" in again.stderr
        (row,) = json.loads(cli(tmp_path, "status", "-o", "json").stdout)
        assert (row["name"], row["state"], row["nodes"], row["pods"]) == ("default", "ready", 3, 0)
        assert "kube-apiserver" in cli(tmp_path, "status").stdout
        path = Path(cli(tmp_path, "kubeconfig").stdout.strip())
        with Api.from_kubeconfig(path) as api:
            memory = {
                n["metadata"]["name"]: n["status"]["capacity"]["memory"] for n in api.items("/api/v1/nodes")
            }
        assert memory == {"node-1": "32Gi", "node-2": "32Gi", "node-3": "1280Mi"}
    finally:
        stopped = cli(tmp_path, "down")
    assert stopped.returncode == 0
    assert gone({**record["programs"], "owner": record["pid"]})
    assert not path.parent.exists()
    missing = cli(tmp_path, "kubeconfig")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "no control plane named 'default' is up" in missing.stderr


def test_command_line_names_what_is_wrong(tmp_path: Path) -> None:
    wrong = cli(tmp_path, "up", "--nodes", "4:32Gi")
    assert wrong.returncode == 2
    assert "'4:32Gi' is not COUNT:CPU:MEMORY" in wrong.stderr
    wrong = cli(tmp_path, "up", "--no-controller-manager", "--feature-gate", "NoSuchGate")
    assert wrong.returncode == 3
    assert "unrecognized feature gate: NoSuchGate" in wrong.stderr
    assert cli(tmp_path, "down").returncode == 1


def test_programs_come_from_a_named_folder_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "etcd"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    monkeypatch.delenv("WHOLEPOD_ASSETS", raising=False)
    assert sources.find(["etcd"], report=pytest.fail) == {
        "etcd": sources.Asset("etcd", program, "KUBEBUILDER_ASSETS")
    }
    monkeypatch.setenv("WHOLEPOD_ASSETS", str(tmp_path / "absent"))
    with pytest.raises(ClusterError, match=r"WHOLEPOD_ASSETS names .*absent, which is not a folder"):
        sources.find(["etcd"], report=pytest.fail)


@pytest.mark.parametrize(("version", "source"), [("3.5.21", "cache"), ("3.6.0", "PATH")])
def test_a_program_on_the_path_must_have_the_right_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, source: str
) -> None:
    for folder, text in ((tmp_path / "bin", f"etcd Version: {version}"), (tmp_path / "cache", "cached")):
        folder.mkdir()
        (folder / "etcd").write_text(f"#!/bin/sh\necho {text}\n")
        (folder / "etcd").chmod(0o755)
    for variable in sources.ASSET_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(sources, "cache_folder", lambda program: tmp_path / "cache")
    assert sources.find(["etcd"], report=pytest.fail)["etcd"].source == source


@pytest.mark.parametrize(
    ("go", "message"),
    [
        (None, "needs Go 1.26 or newer, and there is no go on PATH: install it"),
        ("go1.25.3\nlocal", "needs Go 1.26 or newer, and the one on PATH is 1.25: install it"),
        ("go1.20.1\nauto", "and the one on PATH is 1.20"),
    ],
)
def test_a_build_without_the_right_go_says_what_would_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, go: str | None, message: str
) -> None:
    if go is not None:
        (tmp_path / "go").write_text(f"#!/bin/sh\nprintf '{go}\\n'\n")
        (tmp_path / "go").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ClusterError, match=message):
        build([pin("etcd")], report=pytest.fail)


def test_a_build_that_fails_shows_the_compilers_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "go").write_text(
        "#!/bin/sh\n[ $1 = env ] && { echo go1.99.0; exit; }\necho 'main.go:7:2: undefined: x' >&2; exit 1\n"
    )
    (tmp_path / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ClusterError, match=r"building etcd failed(.|\n)*undefined: x"):
        build([pin("etcd")], report=lambda line: None)
    assert list(cache_folder(pin("etcd")).iterdir()) == []


def test_an_older_minor_can_be_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WHOLEPOD_KUBERNETES", raising=False)
    newest = pin("kube-apiserver")
    assert older_minors(), "none is pinned"
    for minor in older_minors():
        monkeypatch.setenv("WHOLEPOD_KUBERNETES", minor)
        older = pin("kube-apiserver")
        assert ".".join(map(str, older.pinned[:2])) == minor
        assert cache_folder(older) != cache_folder(newest)
        # What the user's folder has of another minor is not meant.
        for name, version in (("kube-apiserver", newest.pinned), ("etcd", (3, 7, 0))):
            (tmp_path / name).write_text(f"#!/bin/sh\necho v{'.'.join(map(str, version))}\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("WHOLEPOD_ASSETS", str(tmp_path))
        monkeypatch.setattr(sources, "build", lambda programs, *, report: None)
        found = sources.find(["kube-apiserver", "etcd"], report=pytest.fail)
        assert found["etcd"].path.parent == tmp_path
        assert found["kube-apiserver"].path.parent != tmp_path
    monkeypatch.setenv("WHOLEPOD_KUBERNETES", "1.2")
    with pytest.raises(ClusterError, match=rf"Kubernetes 1\.2, .* it may be {' or '.join(older_minors())}"):
        pin("kube-scheduler")
