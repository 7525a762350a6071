"""Providers, their keys, models and checks."""
