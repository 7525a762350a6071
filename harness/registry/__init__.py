"""Providers, keys and models that are registered, and who uses them."""
