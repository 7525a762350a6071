"""Evals measure a model: suites of items, scorers, a runner, and a simulated provider.

Only evals.runner imports inspect_ai; the other packages import fast.

Evals give scores and decide nothing: the gate in `harness.gate` compares them. Proofs contain
hashes of the sources of `evals.scorers`, so even a changed comment there makes a new scorer.
"""
