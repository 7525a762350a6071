"""Queries, keys, people, captures, housekeeping."""
