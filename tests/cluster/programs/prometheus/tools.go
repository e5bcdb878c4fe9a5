//go:build tools

// Package programs pins Prometheus and its promtool: go.mod says which version, these imports say which
// parts of it. tests/cluster/build.py builds them, without service discovery in clouds.
package programs

import (
	_ "github.com/prometheus/prometheus/cmd/prometheus"
	_ "github.com/prometheus/prometheus/cmd/promtool"
)
