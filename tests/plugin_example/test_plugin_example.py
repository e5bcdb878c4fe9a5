"""The example is installed as users would install it, and named in a configuration file."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent
ROOT = EXAMPLE.parents[1]

Result = subprocess.CompletedProcess[str]


def configuration_of_readme() -> str:
    [text] = re.findall(r"```yaml\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL)
    return str(text)


def install(project: Path, target: Path) -> None:
    uv = os.environ.get("UV") or shutil.which("uv")
    assert uv, "uv is needed (make test brings it)"
    options = ["--offline", "--no-deps", "--python", sys.executable, "--target", str(target)]
    result = subprocess.run(
        [uv, "pip", "install", *options, str(project)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example installed in it."""
    target = tmp_path_factory.mktemp("site-packages")
    install(EXAMPLE, target)
    return target


def python(*arguments: str, path: Path | None) -> Result:
    """Runs a module of ours with `path` as a further place to import from."""
    environment = {**os.environ, "PYTHONPATH": str(path or "")}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def config_file(folder: Path, text: str) -> str:
    file = folder / "config.yaml"
    file.write_text(text)
    return str(file)


def decide(path: Path | None, file: str) -> dict[str, str]:
    result = python("tests.plugin_example.decide", file, path=path)
    assert result.returncode == 0, result.stderr
    decisions: dict[str, str] = json.loads(result.stdout)
    return decisions


def test_decisions_follow_the_plugin(installed: Path, tmp_path: Path) -> None:
    with_plugin = decide(installed, config_file(tmp_path, configuration_of_readme()))
    assert with_plugin == {
        "urgent": "reserved",
        "usual": "open",
        "usual-too": "0/2 nodes are available: 1 Insufficient memory, "
        "1 node(s) were reserved for pods of higher priority. preemption: 0/2 nodes are available: "
        "1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling.",
    }
    head = configuration_of_readme().split("profiles:")[0]
    without = decide(installed, config_file(tmp_path, head))
    assert without == {"urgent": "open", "usual": "reserved", "usual-too": "reserved"}


def test_its_arguments_come_from_the_profile(installed: Path, tmp_path: Path) -> None:
    other_label = configuration_of_readme().replace("label: example.com/reserved-from", "label: other")
    decisions = decide(installed, config_file(tmp_path, other_label))
    assert decisions == {"urgent": "open", "usual": "reserved", "usual-too": "reserved"}


def refusal(path: Path | None, folder: Path, text: str) -> str:
    """What the scheduler says on its way out; it must not get as far as the cluster."""
    file = config_file(folder, text)
    result = python("scheduler", "run", "--config", file, "--kubeconfig", "/nowhere", path=path)
    assert (result.returncode, result.stdout) == (2, "")
    return result.stderr.strip()


def test_arguments_it_refuses(installed: Path, tmp_path: Path) -> None:
    wrong = configuration_of_readme().replace("label: example.com/reserved-from", "labels: x")
    assert refusal(installed, tmp_path, wrong) == (
        "wholepod: profile wholepod: plugin ReservedNodes rejects its arguments: "
        "plugin ReservedNodes takes no arguments, got labels"
    )


def test_an_entry_point_that_leads_nowhere(tmp_path: Path) -> None:
    project, target = tmp_path / "project", tmp_path / "site-packages"
    shutil.copytree(EXAMPLE, project)
    pyproject = project / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace(":ReservedNodes", ":Nosuch"))
    install(project, target)
    assert refusal(target, tmp_path, configuration_of_readme()) == (
        "wholepod: profile wholepod: plugin 'ReservedNodes': entry point 'wholepod_reserved_nodes:Nosuch' "
        "cannot be loaded: AttributeError: module 'wholepod_reserved_nodes' has no attribute 'Nosuch'"
    )
