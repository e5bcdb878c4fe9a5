"""Kubernetes' own end-to-end tests of scheduling, with Wholepod as the cluster's only scheduler.

They know nothing of us, they are what a scheduler has to pass to be called Kubernetes', and half of
them are part of Kubernetes' conformance. `make e2e-upstream` compiles and runs them.
"""
