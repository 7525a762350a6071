"""The checks of `swapproof doctor`: the installation, its providers, and tool loops of a
target.

`provider_requests`, `tool_checks` and `live_checks` send questions to models with the user's
keys, so they run only at the user's request.
"""
