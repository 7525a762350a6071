"""The databases: SQLite, PostgreSQL, and the working twin in memory. No decisions here."""
