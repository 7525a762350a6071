"""The online gate: a canary's observations in, evidence and the next step out."""
