"""What a worker stores about its requests: traffic, evidence, spending, alerts and
captures.

The way is `port`, then `recorder` in one process, or `reporter` and `worker_aggregator`
between processes; then `spool` and the database.
"""
