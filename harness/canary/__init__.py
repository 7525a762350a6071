"""Canaries, shadows and their moves."""
