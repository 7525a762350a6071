"""Eval runs in use: their spending and its monthly cap, the drift watch, the validity of
verdicts, and result files of other tools.

`evals.runner` calls the models, and `harness.gate.offline` judges the scores.
`harness.proposals` uses both.
"""
