//go:build tools

// Package programs pins kwok: go.mod says which version, this import says which part of it.
// tests/cluster/build.py builds it.
package programs

import _ "sigs.k8s.io/kwok/cmd/kwok"
