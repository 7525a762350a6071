"""The access room decides who may call: data keys, rate limits and budgets."""
