"""The processes that ask and score the items of eval runs.

`processes` starts them, `worker` is the program of one run, and `run` assembles both, and the
host for a queue. `evals.runner` asks and scores the items.
"""
