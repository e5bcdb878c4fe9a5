"""Wholepod as it is installed: image, chart and real containers on a real kind cluster (`make e2e`)."""
