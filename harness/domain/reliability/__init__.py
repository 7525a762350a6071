"""How failures are met: breakers, retries, fail-over, rate limits and budgets."""
