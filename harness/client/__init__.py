"""The Python client of Swapproof: calls routes over HTTP, or with a router in this process.

`swapproof` re-exports the public names. `types` has requests and answers; `sync_client` and
`async_client` send them. The router chooses the model and the fallbacks, not the client. The
client repeats a request at most once, if the router recommends it.
"""
