"""Faults from outside, on a real API server, at every step of a gang's commit (`python -m tests.faults`)."""
