"""End-to-end tests that take minutes, each behind its own make target."""
