"""Pure rules of failover, breakers and repairs."""
