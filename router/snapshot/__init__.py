"""Keeps the compiled routing revision in memory."""
