"""Gangs: pods that only make sense together, placed together or not at all."""
