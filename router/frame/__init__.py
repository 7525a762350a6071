"""The frame room holds what every other room of the router stands on: JSON with its places,
HTTP replies, ASGI, timers, and the failures of providers.
"""
