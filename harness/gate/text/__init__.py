"""The gate's results in plain sentences."""
