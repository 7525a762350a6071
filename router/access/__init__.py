"""Decides which callers the router serves: data keys, rate limits and budgets."""
