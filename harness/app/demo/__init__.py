"""The demo: four stories of a model swap on this machine, with real processes."""
