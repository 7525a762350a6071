"""What is kept of users: captures, archives, retention, deletion, and encryption at rest."""
