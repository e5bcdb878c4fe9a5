"""Pages for operators, followed as they stand: all their `sh` blocks, from top to bottom, in one shell.

A block marked `sh by-hand` is left out: it needs what is not here (an image that really runs, a plugin of
Helm's); they are counted. Everything else is real but for the nodes: kwok keeps them ready and calls every
bound pod running, the release's own pods, too. So the scheduler that these would be runs beside, with the
profiles of the page.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.chart.helm import program as helm
from tests.cluster import ControlPlane, node_manifest
from tests.integration.controlling import with_crd
from tests.integration.harness import REPOSITORY, WHOLEPOD, Scheduler

DOCS = REPOSITORY / "docs"
PREPARED = {
    "upgrade.md": "helm install wholepod charts/wholepod --namespace scheduling --create-namespace --wait",
}
"""What a page presumes."""
BY_HAND = {
    "install.md": 1,
    "upgrade.md": 1,
    "use.md": 1,
    "coexistence.md": 0,
    "migration.md": 0,
    "security.md": 0,
}
"""Page → blocks that are left out."""
_BLOCK = re.compile(r"^( *)```sh( by-hand)?\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def blocks(page: str) -> tuple[list[str], int]:
    """What is to be run, and how many blocks are not."""
    found = _BLOCK.findall((DOCS / page).read_text())
    run = [
        re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, by_hand, text in found if not by_hand
    ]
    return run, len(found) - len(run)


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with ControlPlane(scheduler=True, kwok=True) as plane:
        for n in range(3):
            labels = {"node-role.kubernetes.io/control-plane": ""} if n == 0 else None
            plane.api.create(node_manifest(f"node-{n}", cpu="8", memory="8Gi", labels=labels))
        yield plane


@pytest.mark.parametrize("page", BY_HAND)
def test_a_page_can_be_followed(page: str, plane: ControlPlane, tmp_path: Path) -> None:
    steps, by_hand = blocks(page)
    assert steps
    assert by_hand == BY_HAND[page]
    if page == "migration.md":
        with_crd(plane)
    commands = tmp_path / "commands"
    commands.mkdir()
    (commands / "helm").symlink_to(helm())
    for name in ("charts", "deploy", "docs"):  # the page works in a checkout that it may write to
        (tmp_path / name).symlink_to(REPOSITORY / name)
    script = "\n".join(["set -euo pipefail", PREPARED.get(page, ""), *steps])
    with Scheduler("--leader-elect=false", kubeconfig=plane.kubeconfig, log=tmp_path / "scheduler.log"):
        done = subprocess.run(
            ["bash", "-x", "-c", script],
            cwd=tmp_path,
            env={
                **os.environ,
                "KUBECONFIG": str(plane.kubeconfig),
                "PATH": f"{commands}:{WHOLEPOD.parent}:{os.environ['PATH']}",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
    assert done.returncode == 0, "\n".join([done.stdout, *done.stderr.splitlines()[-20:]])


@pytest.mark.parametrize("page", BY_HAND)
def test_examples_are_yaml(page: str) -> None:
    for text in re.findall(r"^```yaml\n(.*?)^```$", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE):
        assert list(yaml.safe_load_all(text))
