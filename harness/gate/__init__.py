"""The judge: pairs and counts in, evidence and verdicts out. No I/O, no ports."""
