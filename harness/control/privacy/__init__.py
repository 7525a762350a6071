"""What is kept of users: captures, retention, deletion, and encryption at rest."""
