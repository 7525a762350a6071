"""Judges scores and counts in files as gate and canary do, without an installation."""
