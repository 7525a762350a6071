"""Calls of the control plane to providers."""
