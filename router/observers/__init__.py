"""The observers of requests, and the background work that they cause.

An observer counts, samples or copies requests. It changes neither the request's
plan nor its answer. Their base class is in `router.request.request_observers`.
"""
