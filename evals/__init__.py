"""Evals measure a model: suites of items, scorers, a runner, and a simulated provider.

Only evals.runner imports inspect_ai; the other packages import fast.
"""
