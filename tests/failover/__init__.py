"""Leaders that die, fall silent or are replaced during a stream of pods (`python -m tests.failover`)."""
