"""The rights that the manifests grant, one by one: whose, which, where, and for which object alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from scheduler.kube.permissions import Permission
from tests.deploy.generate import DEPLOY
from tests.deploy.kubectl import Json

RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True)
class Right:
    """One verb on one resource. `namespace`: "" for all of them. `name`: "" for all objects."""

    permission: Permission
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (str(self.permission), self.name)))

    @property
    def rule(self) -> Json:
        asked = self.permission
        resource = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
        names = {"resourceNames": [self.name]} if self.name else {}
        return {"apiGroups": [asked.group], "resources": [resource], "verbs": [asked.verb], **names}


def granted(manifest: str) -> Iterator[Right]:
    """By the roles of a file in deploy/."""
    for item in yaml.safe_load_all((DEPLOY / manifest).read_text()):
        namespace = item["metadata"].get("namespace", "")
        for rule in item.get("rules", ()):
            for group in rule["apiGroups"]:
                for path in rule["resources"]:
                    resource, _, subresource = path.partition("/")
                    for verb in rule["verbs"]:
                        for name in rule.get("resourceNames", ("",)):
                            yield Right(Permission(verb, resource, group, subresource), namespace, name)


def roles_of(user: str, rights: list[Right]) -> Iterator[tuple[str, Json]]:
    """(path, body) of what has to be created so that a user has these rights: roles, then their bindings."""
    for namespace in sorted({right.namespace for right in rights}):
        kind, where = ("Role", f"/namespaces/{namespace}") if namespace else ("ClusterRole", "")
        metadata = {"name": user, **({"namespace": namespace} if namespace else {})}
        common = {"apiVersion": f"{RBAC}/v1", "metadata": metadata}
        rules = [right.rule for right in rights if right.namespace == namespace]
        path = f"/apis/{RBAC}/v1{where}/{kind.lower()}"
        yield f"{path}s", {**common, "kind": kind, "rules": rules}
        reference = {"apiGroup": RBAC, "kind": kind, "name": user}
        subjects = [{"apiGroup": RBAC, "kind": "User", "name": user}]
        yield (
            f"{path}bindings",
            {**common, "kind": f"{kind}Binding", "roleRef": reference, "subjects": subjects},
        )
