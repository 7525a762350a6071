"""The gate turns pairs and counts into evidence and verdicts, without I/O and ports.

`offline` judges eval scores, `online` a canary's counts; beside them are the plans, the policy
and the sentences that explain both. Every function returns the same result for the same
arguments, so that a stored decision can be repeated. `harness.proposals` and `harness.canary`
call the gate.
"""
