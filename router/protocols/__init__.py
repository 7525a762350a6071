"""Reads and writes the wire formats of clients and providers."""
