//go:build tools

// Package programs pins Kubernetes: go.mod says which version (with the replaces that
// k8s.io/kubernetes needs outside its own repository), these imports say which parts of it.
// tests/cluster/build.py builds those that a control plane asks for.
package programs

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-proxy"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
	_ "k8s.io/kubernetes/cmd/kubeadm"
	_ "k8s.io/kubernetes/cmd/kubelet"
)
