//go:build tools

// Package programs pins kind: go.mod says which version, this import says which part of it.
// tests/cluster/build.py builds it.
package programs

import _ "sigs.k8s.io/kind"
