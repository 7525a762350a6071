"""SQLite and PostgreSQL: named Core statements, by subject."""

from harness.store.sql.store import SqlStore

__all__ = ["SqlStore"]
