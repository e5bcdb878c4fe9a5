"""Volumes: what a pod's claims ask of a node, and what has to be written before the pod can be bound."""
