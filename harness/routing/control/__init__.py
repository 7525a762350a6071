"""Routes as people change and watch them: settings, freezes, checks of data, outages.

The routing table, its changes and its records are in `harness.routing`. Only `routes` writes a
route here, and only its settings; a swap of models is the business of proposals and canaries.
"""
