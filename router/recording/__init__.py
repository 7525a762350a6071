"""Stores the traffic, evidence, spending, alerts and captures of a worker's requests.

Observers call `port`. `recorder` implements it in one process, `reporter` and
`worker_aggregator` between processes. They write to `spool` and the database.
"""
