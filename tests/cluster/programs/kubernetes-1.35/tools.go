//go:build tools

// Package programs pins an older Kubernetes, to see that Wholepod works with its API server: go.mod says
// which version, these imports say which parts of it. tests/cluster/build.py builds those that a
// control plane asks for.
package programs

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
)
