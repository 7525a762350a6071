"""The runner of an eval: it asks a target every item of a suite, and scores the answers.

Start to read at `inspect_runner`, which runs one eval in one process. `questions` plans the
run, `inspect_tasks` builds the Inspect task, `inspect_model` and `provider_client` ask the
target, and `collector` passes each finished sample on. `harness.app.eval_workers` starts the
processes.
"""
