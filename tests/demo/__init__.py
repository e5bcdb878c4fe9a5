"""The A + B problem, live: `make demo`, or `python -m tests.demo`.

Nothing is staged: a real etcd and kube-apiserver, the real `wholepod run` with the role that
deploy/base/rbac.yaml grants it, and pods from files that work in any cluster. Only kubelets are missing, so
pods get a node but don't start there. What the demo shows it also checks, so that it can't go stale.
"""
