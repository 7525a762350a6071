"""Decides which callers the router serves: client keys, rate limits and budgets."""
