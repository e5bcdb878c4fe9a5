"""What is decided and written before a kind cluster is created; `make e2e` tries the rest on a real one."""

import json
import re
import socket
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.errors import ClusterError
from tests.cluster.kind import cluster, config, engine, host, node_image
from tests.cluster.kind.images import Settings, write_scratch_image
from tests.cluster.kind.ways import Facts, Way, choose

IMAGE = "kindest/node:v1"
GIB = 1 << 30


def facts(**changed: Any) -> Facts:
    """A machine with Debian's packages, root, cgroup v1, and no engine."""
    usual = {"engine": False, "node_image": False, "cgroup_version": 1, "root": True, "apt": True}
    return Facts(**{**usual, **changed})


@pytest.mark.parametrize("cgroup_version", [1, 2])
def test_an_engine_with_the_node_image_needs_nothing_else(cgroup_version: int) -> None:
    have = facts(engine=True, node_image=True, cgroup_version=cgroup_version, root=False, apt=False)
    assert choose(have, IMAGE) is Way.PULLED


@pytest.mark.parametrize("engine", [True, False])
def test_without_registry_the_image_is_made(engine: bool) -> None:
    assert choose(facts(engine=engine), IMAGE) is Way.BUILT


@pytest.mark.parametrize(
    ("changed", "fix"),
    [
        ({"cgroup_version": 2}, "install Docker"),
        ({"cgroup_version": 2, "engine": True}, f"has the image {IMAGE} nor can pull it"),
        ({"root": False}, "run it as root"),
        ({"root": False, "engine": True}, f"the engine can't pull {IMAGE}"),
        ({"apt": False}, "start an engine that reaches a registry"),
    ],
)
def test_what_stands_in_the_way_is_named_with_its_fix(changed: dict[str, Any], fix: str) -> None:
    with pytest.raises(ClusterError, match=re.escape(fix)):
        choose(facts(**changed), IMAGE)


@pytest.mark.parametrize("way", Way)
def test_workers_differ_in_what_they_give_to_pods(way: Way) -> None:
    wanted = config.cluster(way, memory_bytes=16 * GIB)
    roles = [node["role"] for node in wanted["nodes"]]
    assert roles == ["control-plane", "worker", "worker", "worker"]
    reserved = []
    for node in wanted["nodes"][1:]:
        (step,) = json.loads(node["kubeadmConfigPatchesJSON6902"][0]["patch"])
        assert step["value"]["name"] == "system-reserved"
        reserved.append(int(step["value"]["value"].removeprefix("memory=").removesuffix("Mi")))
    assert [16 * 1024 - each for each in reserved] == list(config.WORKERS_MIB)


def test_only_a_built_image_changes_where_images_come_from() -> None:
    built, pulled = (
        json.dumps(config.cluster(way, memory_bytes=16 * GIB)) for way in (Way.BUILT, Way.PULLED)
    )
    assert node_image.REPOSITORY in built
    assert node_image.REPOSITORY not in pulled
    assert "cgroupfs" not in pulled


def test_the_pod_network_is_the_same_in_the_image() -> None:
    assert (node_image.NODE_FILES / "kind/pod-subnet").read_text().strip() == config.POD_SUBNET


def test_changes_of_the_host_are_said() -> None:
    plan = host.Plan(packages=("jq",), sysctls={"fs.x": "5"}, watched={"kernel.panic": "0"}, engine=True)
    said = "\n".join(plan.sentences())
    for word in ("jq", "fs.x to 5", "start a Docker engine", "kernel.panic", "puts them back"):
        assert word in said
    assert host.Plan().sentences() == []


def test_an_image_is_its_files_and_nothing_else(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("text")
    program.chmod(0o755)
    made = []
    for name in ("one.tar", "two.tar"):
        path = tmp_path / name
        write_scratch_image(path, "localhost/x:1", {"/bin/x": program}, Settings(entrypoint=["/bin/x"]))
        program.touch()  # another time of change is not another image
        made.append(path.read_bytes())
    assert made[0] == made[1]
    with tarfile.open(tmp_path / "one.tar") as archive:
        (manifest,) = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        assert manifest["RepoTags"] == ["localhost/x:1"]
        settings = json.load(archive.extractfile(manifest["Config"]))  # type: ignore[arg-type]
        assert settings["config"]["Entrypoint"] == ["/bin/x"]
        with tarfile.open(fileobj=archive.extractfile(manifest["Layers"][0])) as layer:
            entries = {entry.name: (entry.isdir(), entry.mode, entry.uid) for entry in layer}
    assert entries == {"bin": (True, 0o755, 0), "bin/x": (False, 0o755, 0)}


def test_another_program_is_another_node_image(tmp_path: Path) -> None:
    program = tmp_path / "kubelet"
    names = set()
    for text in ("one", "two", "one"):
        program.write_text(text)
        names.add(node_image.name_of({"kubelet": program}))
    assert len(names) == 2


def test_there_is_no_record_where_nothing_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert cluster.record() is None


def test_an_engine_that_listens_is_not_taken_for_the_remains_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "SOCKET", tmp_path / "docker.sock")
    monkeypatch.setattr(engine, "CONTAINERD_PID", tmp_path / "containerd.pid")
    folder = engine.Daemon(tmp_path / "engine")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(engine.SOCKET))
        listener.listen()
        with pytest.raises(ClusterError, match="a Docker engine listens on"):
            folder.start()
        assert engine.SOCKET.exists()
