"""Proposals: from a person's request to swap a model, through evals and verdict, to its
approval.

`submission` registers a proposal, `evaluation` measures it, `decisions` records people's
answers. `candidates` chooses models to propose, and `report` presents results. On each turn of
the reconcile loop, `driver` takes a proposal one step further; `harness.canary` opens its
canary.
"""
