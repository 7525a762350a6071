"""Connections to SQLite and PostgreSQL, notifications of changes, and the leader's lock.

The store of all tables is in `harness.app.store`, because it knows every subject's records.
"""
