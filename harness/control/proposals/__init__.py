"""From a proposal to its verdict: use cases of those who propose and of those who approve."""
