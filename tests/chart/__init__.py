"""The Helm chart: its schema of values, what it renders, what it refuses."""
