"""`make image-test`: the image as an engine builds it and runs it, on a real API server.

Needs an engine, so `make test` leaves it out. A second build from scratch shows that the image is the same
wherever and whenever it is built.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import OutputFormat
from cyclonedx.validation import make_schemabased_validator

from scheduler import __version__
from tests.cluster import ControlPlane, node_manifest, pod_manifest
from tests.image import base, build, sbom
from tests.image.engine import docker
from tests.integration.harness import eventually

SECOND = "wholepod:second-build"
LOCKED_DOWN = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
CONFIGURATION = """\
apiVersion: wholepod.io/v1alpha1
kind: SchedulerConfiguration
profiles: [{schedulerName: wholepod}]
"""


def silent(line: str) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def image() -> build.Image:
    return build.build(on=base.default(), report=silent)


def run(image: build.Image, *arguments: str, options: tuple[str, ...] = ()) -> str:
    command = ("run", "--rm", "--network=none", *LOCKED_DOWN, *options, image.name, *arguments)
    return docker(*command, doing=f"Running {arguments}")


def test_it_runs_locked_down(image: build.Image) -> None:
    assert run(image, "--version").split()[-1] == __version__
    assert "wholepod" in run(image, "run", "--help")
    # Some clusters give each namespace users of its own.
    assert "wholepod" in run(image, "controller", "--help", options=("--user=1000700000:0",))


def test_nothing_in_it_is_for_its_user_to_write(image: build.Image) -> None:
    search = ("/opt", "-writable", "!", "-type", "l")
    assert run(image, *search, options=("--entrypoint=find",)) == ""
    assert run(image, "-u", options=("--entrypoint=id",)).strip() == "65532"


def test_labels(image: build.Image) -> None:
    [known] = json.loads(docker("image", "inspect", image.name, doing="Looking at labels"))
    labels = known["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.revision"] == build.source()[0]


def test_a_second_build_is_the_same(image: build.Image) -> None:
    try:
        second = build.build(SECOND, on=base.default(), report=silent, cached=False)
        assert second.layers == image.layers
    finally:
        docker("image", "rm", "--force", SECOND, doing="Removing the second build")


def test_what_is_in_it_is_listed(image: build.Image) -> None:
    text = build.bill_of_materials(image)
    assert make_schemabased_validator(OutputFormat.JSON, sbom.SCHEMA).validate_str(text) is None
    listed = {each["purl"].partition("?")[0] for each in json.loads(text)["components"]}
    assert f"pkg:pypi/wholepod@{__version__}" in listed
    assert any(purl.startswith("pkg:deb/debian/libc6@") for purl in listed)
    # What is locked is what is installed, to the last version; a base may have a pip of its own.
    command = ["uv", "export", "--frozen", "--no-dev", "--no-emit-project", "--no-hashes", "--no-annotate"]
    lines = subprocess.run(command, cwd=base.ROOT, capture_output=True, text=True, check=True).stdout
    locked = {line.partition(";")[0].strip() for line in lines.splitlines() if not line.startswith("#")}
    packages = {purl.removeprefix("pkg:pypi/") for purl in listed if purl.startswith("pkg:pypi/")}
    unlocked = {
        name
        for name, _, version in (p.partition("@") for p in packages)
        if f"{name}=={version}" not in locked
    }
    assert unlocked - {"pip"} == {"wholepod"}


def state(container: str) -> dict[str, Any]:
    [known] = json.loads(docker("container", "inspect", container, doing="Looking at a container"))
    found: dict[str, Any] = known["State"]
    return found


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with ControlPlane(controller_manager=False) as plane:
        yield plane


def test_it_schedules(image: build.Image, plane: ControlPlane, tmp_path: Path) -> None:
    """On the API server of this machine, hence with its network; the image's user has to read the files."""
    kubeconfig, configuration = tmp_path / "kubeconfig", tmp_path / "config.yaml"
    shutil.copyfile(plane.kubeconfig, kubeconfig)
    configuration.write_text(CONFIGURATION)
    for path in (tmp_path, kubeconfig, configuration):
        path.chmod(0o755)
    plane.api.create(node_manifest("node-1", memory="1Gi"))
    container = docker(
        *("run", "--detach", "--network=host", *LOCKED_DOWN, f"--volume={tmp_path}:/cluster:ro", image.name),
        *("run", "--kubeconfig=/cluster/kubeconfig", "--config=/cluster/config.yaml"),
        "--bind-address=127.0.0.1:0",
        doing="Starting the scheduler",
    ).strip()
    try:
        plane.api.create(pod_manifest("fits", {"memory": "100Mi"}))
        pod = "/api/v1/namespaces/default/pods/fits"

        def bound() -> str | None:
            assert state(container)["Running"]
            node: str | None = plane.api.get(pod)["spec"].get("nodeName")
            return node

        assert eventually(bound, "the pod is bound") == "node-1"
        docker("stop", container, doing="Stopping the scheduler")
        assert state(container)["ExitCode"] == 0
    finally:
        subprocess.run(["docker", "logs", container], stderr=subprocess.STDOUT)
        docker("rm", "--force", container, doing="Removing the container")
