"""The online gate: a canary's observations in, evidence and the next step out.

`guardrails` and `observation` define the counts, `evidence_paths` and `rollout_evidence` add
them up, `rollout_action` decides, and `rollout` has the states. `harness.canary` writes the
decisions, and the router counts.
"""
