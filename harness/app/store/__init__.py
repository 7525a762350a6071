"""The databases: SQLite and PostgreSQL. No decisions here.

`store.Store` is the entrance: it opens transactions. `engine` connects, `migrate` and
`schema_revisions` handle the schema, `guards` has the triggers, and `leader` and `job_queue`
coordinate processes. The tables themselves are declared beside their subjects, in `records`
modules; `tables` collects them.
"""
