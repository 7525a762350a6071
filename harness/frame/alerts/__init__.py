"""Alerts and their delivery."""
