"""Evals: suites and their items, scorers, and the runners that ask a target.

Only runner, model and tasks import inspect_ai; the rest is cheap to import.
"""
