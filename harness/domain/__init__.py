"""The nouns and rules, in plain Python: no I/O, no clock, no logging, no randomness."""
