"""The Python client of a router; `swapgate` is its public name."""
