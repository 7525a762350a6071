"""Proposals: from a person's request to swap a model, through evals and verdict, to its
approval.

`submission` registers a proposal, `evaluation` measures it, `decisions` records people's
answers. `candidates` chooses models to propose, and `report` presents results. `driver` moves a
proposal by one step on each turn of the reconcile loop; `harness.canary` opens its canary.
"""
