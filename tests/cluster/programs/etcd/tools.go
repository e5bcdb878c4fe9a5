//go:build tools

// Package programs pins etcd: go.mod says which version, this import says which part of it.
// tests/cluster/build.py builds it.
package programs

import _ "go.etcd.io/etcd/server/v3"
