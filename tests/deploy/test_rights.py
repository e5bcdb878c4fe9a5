"""Each right that the manifests grant is needed: without it, and with all the others, something says so.

For each right there is a user on a real API server who has all but that one, and what the commands check at
start is checked as that user. That these checks ask for no more than the work takes is shown by
test_rights_used.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from scheduler.config import LeaderElection, ProfileConfig
from scheduler.controller.rights import CONTROLLER, CRD_MANIFEST, INSTALL_CRDS, MANIFEST
from scheduler.kube.client import KubeClient
from scheduler.kube.permissions import (
    DELEGATION,
    MissingPermissions,
    Permission,
    missing_for_gangs,
    require,
    require_permissions,
)
from scheduler.plugins.profiles import build_profile
from tests.cluster import ControlPlane
from tests.deploy.rights import Right, granted, roles_of
from tests.integration.harness import eventually

LEASE = LeaderElection()
WATCHED = sorted(build_profile(ProfileConfig(preset="kube")).watches, key=lambda kind: kind.__name__)


@dataclass(frozen=True)
class Manifest:
    """`asks`: what its command asks for at start, but for the scheduler's own check."""

    path: str
    asks: Sequence[Permission] = ()

    @property
    def rights(self) -> list[Right]:
        return list(granted(self.path))

    def users(self) -> dict[str, list[Right]]:
        """By name: one for each right, who lacks it, and one who lacks none."""
        rights, stem = self.rights, self.path.replace("/", "-").removesuffix(".yaml")
        lacking = {
            f"{stem}-without-{number}": [each for each in rights if each is not right]
            for number, right in enumerate(rights)
        }
        return {**lacking, f"{stem}-whole": rights}

    async def missing(self, client: KubeClient) -> list[str]:
        """What the command says at start, or what part of its work it says that it does without."""
        if self.asks:
            try:
                await require(client, self.asks, self.path)
            except MissingPermissions as error:
                return [str(error)]
            return []
        said = []
        try:
            await require_permissions(
                client,
                watched=WATCHED,
                writes_volumes=True,
                leader_elect=True,
                lease_namespace=LEASE.resource_namespace,
                lease_name=LEASE.resource_name,
                delegates_authorization=True,
            )
        except MissingPermissions as error:
            said.append(str(error))
        journal, groups = await missing_for_gangs(
            client, lease_namespace=LEASE.resource_namespace, lease_name=LEASE.resource_name
        )
        return [*said, *filter(None, (journal, *groups.values()))]


MANIFESTS = (
    Manifest("base/rbac.yaml"),
    Manifest(MANIFEST.removeprefix("deploy/"), (*CONTROLLER, *DELEGATION)),
    Manifest(CRD_MANIFEST.removeprefix("deploy/"), INSTALL_CRDS),
)


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    users = {user: rights for manifest in MANIFESTS for user, rights in manifest.users().items()}
    with ControlPlane(controller_manager=False, users=dict.fromkeys(users, ())) as plane:
        for user, rights in users.items():
            for path, body in roles_of(user, rights):
                plane.api.post(path, body)
        *_, (user, [right]) = users.items()
        resource = f"{right.permission.resource}.{right.permission.group}"
        may = ("auth", "can-i", "--list", f"--as={user}")
        eventually(lambda: resource in plane.kubectl(*may), "the API server has seen the last role")
        yield plane


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest.path)
async def test_without_any_one_right_it_says_which(manifest: Manifest, plane: ControlPlane) -> None:
    *lacking, whole = manifest.users()
    async with KubeClient.from_config(plane.kubeconfig_for(whole)) as client:
        assert await manifest.missing(client) == []
    assert len(lacking) == len(set(manifest.rights))
    for user, right in zip(lacking, manifest.rights, strict=True):
        async with KubeClient.from_config(plane.kubeconfig_for(user)) as client:
            said = await manifest.missing(client)
        assert len(said) == 1, right
        assert f"may not: {right.permission}; grant it" in said[0], right
