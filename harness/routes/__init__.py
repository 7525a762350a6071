"""Use cases that change routes, and reports on them."""
