"""Suites: their settings, data files and items, and how a file of labelled answers becomes
one.
"""
