"""Drift watches: incumbents measured again and again, and what changed in their answers."""
