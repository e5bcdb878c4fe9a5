"""What the controller may do, as little as its work takes: deploy/base/rbac-controller.yaml grants this."""

from scheduler.kube.permissions import Permission

MANIFEST = "deploy/base/rbac-controller.yaml"
CRD_MANIFEST = "deploy/rbac-controller-crds.yaml"

_WORKLOADS = (("jobs", "batch"), ("statefulsets", "apps"), ("jobsets", "jobset.x-k8s.io"))

CONTROLLER = (
    Permission("list", "pods"),
    Permission("watch", "pods"),
    *(Permission(verb, "podgroups", "scheduling.x-k8s.io") for verb in ("list", "watch", "create", "patch")),
    Permission("patch", "podgroups", "scheduling.x-k8s.io", "status"),
    *(Permission(verb, name, group) for name, group in _WORKLOADS for verb in ("get", "list", "watch")),
    # Kinds that come to be served later, or are no more.
    Permission("list", "customresourcedefinitions", "apiextensions.k8s.io"),
    Permission("watch", "customresourcedefinitions", "apiextensions.k8s.io"),
    Permission("create", "events", "events.k8s.io"),
)
INSTALL_CRDS = (Permission("create", "customresourcedefinitions", "apiextensions.k8s.io"),)
"""What --install-crds takes beside."""
