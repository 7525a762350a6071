"""Evals measure a model: suites of items, scorers, a runner, and a simulated provider.

Only evals.runner imports inspect_ai; the other packages import fast.

Evals give scores and decide nothing: the gate in `harness.gate` compares them. The sources of
`evals.scorers` are hashed into proofs, so even a comment there starts a new scorer.
"""
