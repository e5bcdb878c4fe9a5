"""deploy/base/rbac.yaml grants what the scheduler asks for at start: nothing less, and nothing more."""

from pathlib import Path
from typing import Any, Literal

import yaml

from scheduler.config import LeaderElection, ProfileConfig
from scheduler.kube.permissions import (
    DELEGATION,
    GROUPS,
    JOURNAL,
    LEADER_ELECTION,
    SCHEDULING,
    VOLUMES,
    Permission,
    journal_name,
    to_watch,
)
from scheduler.plugins.profiles import build_profile

MANIFESTS = Path(__file__).parents[2] / "deploy" / "base" / "rbac.yaml"
LEASE = LeaderElection()


def manifests(kind: str) -> list[dict[str, Any]]:
    return [item for item in yaml.safe_load_all(MANIFESTS.read_text()) if item["kind"] == kind]


def granted(role: dict[str, Any]) -> list[tuple[Permission, tuple[str, ...]]]:
    """(permission, the only object names that it holds for) of each combination in the role's rules."""
    found = []
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for path in rule["resources"]:
                resource, _, subresource = path.partition("/")
                names = tuple(rule.get("resourceNames", ()))
                found += [(Permission(verb, resource, group, subresource), names) for verb in rule["verbs"]]
    return found


def test_cluster_role_is_what_scheduling_needs() -> None:
    [role] = manifests("ClusterRole")
    presets: tuple[Literal["kube", "memory-fit"], ...] = ("kube", "memory-fit")
    profiles = [build_profile(ProfileConfig(preset=preset)) for preset in presets]
    watched = {kind for profile in profiles for kind in profile.watches}
    groups = [permission for permissions in GROUPS.values() for permission in permissions]
    wanted = [*SCHEDULING, *groups, *(permission for kind in watched for permission in to_watch(kind))]
    wanted += DELEGATION
    if any(profile.makes_plans for profile in profiles):
        wanted += VOLUMES
    assert sorted(granted(role), key=str) == sorted(((p, ()) for p in wanted), key=str)


def test_role_is_what_leader_election_and_the_journal_need() -> None:
    [role] = manifests("Role")
    assert role["metadata"]["namespace"] == LEASE.resource_namespace
    wanted = [
        (p, () if p.verb == "create" else (name,))
        for permissions, name in (
            (LEADER_ELECTION, LEASE.resource_name),
            (JOURNAL, journal_name(LEASE.resource_name)),
        )
        for p in permissions
    ]
    assert sorted(granted(role), key=str) == sorted(wanted, key=str)


def test_both_roles_are_bound_to_the_one_account() -> None:
    [account] = manifests("ServiceAccount")
    for kind in ("ClusterRole", "Role"):
        [role], [binding] = manifests(kind), manifests(f"{kind}Binding")
        assert binding["roleRef"]["kind"] == kind
        assert binding["roleRef"]["name"] == role["metadata"]["name"]
        assert binding["metadata"].get("namespace") == role["metadata"].get("namespace")
        [subject] = binding["subjects"]
        assert subject["kind"] == "ServiceAccount"
        for key in ("name", "namespace"):
            assert subject[key] == account["metadata"][key]
