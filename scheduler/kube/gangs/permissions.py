"""What the commit of gangs may do, beside what scheduling may (`scheduler.kube.permissions`)."""

from scheduler.kube.permissions import Permission

MEMBERS = (
    Permission("get", "pods"),
    Permission("create", "pods", subresource="binding"),
    Permission("patch", "pods", subresource="status"),
    Permission("delete", "pods"),
)
"""In all namespaces. Only `delete` is new: members of a gang that can't be completed."""
JOURNAL = tuple(Permission(verb, "configmaps") for verb in ("create", "get", "update"))
"""In the lease's namespace; `get` and `update` of the one name, `create` of any (it is not known to the
authoriser)."""
