"""The store: all tables with their triggers, transactions, the signed snapshot. No decisions.

`store.Store` is the entrance: it opens transactions. `migrate` and `schema_revisions` handle
the schema, `guards` has the triggers, and `job_queue` shares eval runs among hosts. The tables
themselves are declared beside their subjects, in `records` modules; `tables` collects them.
"""
