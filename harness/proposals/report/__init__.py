"""Comparison and report of a proposal."""
