"""From a proposal to its approval."""
