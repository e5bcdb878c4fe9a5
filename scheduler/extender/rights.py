"""What the extender may do: as little as its work takes (deploy/extender/rbac.yaml grants just this)."""

from scheduler.kube.permissions import Permission

MANIFEST = "deploy/extender/rbac.yaml"

EXTENDER = (
    *(Permission(verb, name) for name in ("pods", "nodes", "namespaces") for verb in ("list", "watch")),
    Permission("get", "pods"),
    Permission("create", "pods", subresource="binding"),
)
