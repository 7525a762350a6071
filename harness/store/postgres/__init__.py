"""PostgreSQL only: the job queue and the database's roles."""
