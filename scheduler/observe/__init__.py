"""What an operator sees: metrics, health, the running configuration, logs."""
