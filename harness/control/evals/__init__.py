"""Eval runs and what their verdicts are still worth: workers, recomputation, replay, costs."""
