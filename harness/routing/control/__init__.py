"""The use cases of routes: settings, freezes, checks of data classes and vectors, outages.

The routing table, its changes and its records are in `harness.routing`. Only `routes` writes
routes here, and it changes only their settings. Proposals and canaries swap the models.
"""
