//go:build tools

// Package programs pins helm: go.mod says which version, this import says which part of it.
// tests/cluster/build.py builds it.
package programs

import _ "helm.sh/helm/v4/cmd/helm"
