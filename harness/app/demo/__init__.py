"""The demo: stories of model swaps on this machine, with real processes."""
