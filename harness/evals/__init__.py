"""Eval runs in use: their spending and its monthly cap, the drift watch, the validity of
verdicts, and result files of other tools.

Models are called in `evals.runner`, scores are judged in `harness.gate.offline`, and proposals
use both in `harness.proposals`.
"""
