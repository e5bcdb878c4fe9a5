"""What deploy/base/rbac.yaml grants."""

from collections.abc import Iterator

import yaml

from tests.integration.harness import REPOSITORY


def granted() -> Iterator[tuple[str, str, str]]:
    """(verb, resource with its subresource, API group) of all rules of all roles."""
    for manifest in yaml.safe_load_all((REPOSITORY / "deploy" / "base" / "rbac.yaml").read_text()):
        for rule in manifest.get("rules", ()):
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    yield from ((verb, resource, group) for verb in rule["verbs"])
