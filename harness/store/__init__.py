"""The databases: SQLite and PostgreSQL. No decisions here."""
