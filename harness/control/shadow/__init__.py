"""Shadows: a route's requests mirrored to a candidate, by hand and before a canary."""
