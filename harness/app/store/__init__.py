"""The store: all tables with their triggers, transactions, the signed snapshot. It makes no
decisions. `store.Store` opens transactions. `migrate` and `schema_revisions` handle the schema,
`guards` has the triggers, and `job_queue` shares eval runs among hosts. Each subject declares
its tables in a `records` module; `tables` collects them.
"""
