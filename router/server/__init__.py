"""Reads HTTP/1.1 from clients for the ASGI application."""
