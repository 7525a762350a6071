"""Suites: their settings, data files, items and imports."""
