"""What only PostgreSQL has: its job queue, its roles, its LISTEN, its standbys."""
