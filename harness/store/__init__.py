"""Storage: SQLAlchemy Core on SQLite and PostgreSQL, and the in-memory twin."""
