"""Counts the outcomes of requests, and writes them in the background."""
