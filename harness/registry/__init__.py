"""Registered providers, their keys and models, and the routes that use them."""
