"""Starts, watches and replaces a router's worker processes."""
