"""Sends one attempt to a provider over pooled connections."""
