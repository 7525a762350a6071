"""Providers and targets: kinds of providers, their keys, prices and models, and switches.

Everything but `records`, `calls` and `models.catalogue` is pure. The use cases that change
providers are in `harness.providers.registry`; the router's own calls to providers are in
`router.upstream`.
"""
