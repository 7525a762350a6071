"""Evals measure a model: suites of items, scorers, a runner, and a simulated provider.

Only runner, model and tasks import inspect_ai; the rest is cheap to import.
"""
