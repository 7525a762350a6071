"""The online gate: a canary's observations in, evidence and the next step out.

`guardrails` and `observation` define the counts, `evidence_paths` and `rollout_evidence` add
them up, `rollout_action` decides, and `rollout` has the states. Writing a decision is left to
`harness.canary`; counting is left to the router.
"""
