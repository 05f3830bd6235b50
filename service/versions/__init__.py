"""Model versions as an operator handles them while the service runs: sent, chosen, taken back, deleted."""
