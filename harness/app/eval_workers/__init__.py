"""The processes that ask and score the items of eval runs.

`processes` starts them, `worker` is the program of one run, and `run` assembles both and the
host for a queue. How an item is asked and scored is in `evals.runner`.
"""
