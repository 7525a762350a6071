"""Runs, their costs, and the drift watch."""
