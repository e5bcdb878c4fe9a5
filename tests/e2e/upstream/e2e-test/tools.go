//go:build tools

// Package program pins Kubernetes' own end-to-end tests: go.mod says which version (with the replaces
// that k8s.io/kubernetes needs outside its own repository). `go test -c` makes one program of them.
package program

import (
	_ "k8s.io/kubernetes/test/e2e"
)
