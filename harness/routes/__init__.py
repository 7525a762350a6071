"""What people do with routes, and how routes fare."""
