"""Processes that run evals."""
