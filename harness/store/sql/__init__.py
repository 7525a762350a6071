"""SQLite and PostgreSQL: named Core statements, by subject."""

from harness.store.store import SqlStore

__all__ = ["SqlStore"]
