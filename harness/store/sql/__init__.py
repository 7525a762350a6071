"""SQLite and PostgreSQL: named Core statements, by subject."""
