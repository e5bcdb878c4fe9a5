"""deploy/extender: rights that are just enough, and configurations that kube-scheduler reads."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from scheduler.config import ProfileConfig
from scheduler.core.gangs.ref import GROUPS
from scheduler.extender.rights import EXTENDER, MANIFEST
from scheduler.kube.permissions import DELEGATION, Permission, to_watch
from scheduler.plugins.profiles import build_profile
from tests.unit.test_rbac import granted

ROOT = Path(__file__).parents[3]
RIGHTS = ROOT / MANIFEST
EXAMPLES = sorted(path for path in RIGHTS.parent.glob("*.yaml") if path != RIGHTS)


def rights() -> list[Permission]:
    """All that the extender asks for, with either preset."""
    profiles = [build_profile(ProfileConfig(preset=preset)) for preset in ("kube", "memory-fit")]
    watched = {*(kind for profile in profiles for kind in profile.watches), *GROUPS}
    return [*EXTENDER, *(each for kind in watched for each in to_watch(kind)), *DELEGATION]


def test_the_role_is_what_it_needs() -> None:
    [role] = [each for each in yaml.safe_load_all(RIGHTS.read_text()) if each["kind"] == "ClusterRole"]
    assert sorted(granted(role), key=str) == sorted(((right, ()) for right in rights()), key=str)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_say_what_they_are_for(path: Path) -> None:
    configuration: dict[str, Any] = yaml.safe_load(path.read_text())
    [extender] = configuration["extenders"]
    assert configuration["percentageOfNodesToScore"] == 100
    assert extender["nodeCacheCapable"]
    assert extender["enableHTTPS"]
    assert {"caFile", "certFile", "keyFile"} <= extender["tlsConfig"].keys()
    # An ignorable extender's refusal of a bind is not heeded: it had better not be asked.
    assert ("bindVerb" in extender) is not extender["ignorable"]


def test_there_are_examples() -> None:
    assert sorted(path.stem for path in EXAMPLES) == ["beside-scores", "memory-fit", "memory-fit-ignorable"]
