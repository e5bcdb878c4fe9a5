"""Who may talk to an embedded control plane, and the kubeconfig files that say so.

Users are rows of a static token file: the simplest authentication that a kube-apiserver has, with
no certificates to make and none to expire. What a user may do is decided by RBAC, as in any cluster,
so a scheduler that lacks a permission fails here as it would there.
"""

import base64
import json
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# system:masters bypasses RBAC; the scheduler gets exactly the role that Kubernetes ships for it; the
# stranger is known and may do nothing beyond what any authenticated user may.
BUILT_IN_USERS: Mapping[str, tuple[str, ...]] = {
    "admin": ("system:masters",),
    "system:kube-controller-manager": ("system:masters",),
    "system:kube-scheduler": (),
    "stranger": (),
}


@dataclass(frozen=True)
class User:
    """A row of the token file."""

    name: str
    groups: tuple[str, ...]
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)


def users(extra: Mapping[str, Sequence[str]]) -> dict[str, User]:
    """The built-in users and `extra` ones (name → groups), by name."""
    wanted = {**BUILT_IN_USERS, **{name: tuple(groups) for name, groups in extra.items()}}
    return {name: User(name, groups) for name, groups in wanted.items()}


def write_token_file(path: Path, rows: Mapping[str, User]) -> None:
    """Write the file for --token-auth-file: token,user,uid,"group,group"."""
    lines = [f'{user.token},{user.name},{user.name},"{",".join(user.groups)}"\n' for user in rows.values()]
    _write_private(path, "".join(lines))


def write_kubeconfig(path: Path, *, server: str, ca_file: Path, user: str, token: str) -> None:
    """Write a kubeconfig that stands on its own (the certificate authority is inlined)."""
    authority = base64.b64encode(ca_file.read_bytes()).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "embedded", "cluster": {"server": server, "certificate-authority-data": authority}}
        ],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "embedded", "context": {"cluster": "embedded", "user": user}}],
        "current-context": "embedded",
    }
    # JSON is YAML; every reader of a kubeconfig takes it.
    _write_private(path, json.dumps(config, indent=2) + "\n")


def _write_private(path: Path, text: str) -> None:
    # Complete or not at all: a program that was given the path may be reading it right now.
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as draft:
        draft.write(text)
    Path(draft.name).replace(path)
