"""The Python client of Swapgate: calls routes over HTTP, or with a router in this process.

`swapgate` re-exports the public names. `types` has requests and answers; `sync_client` and
`async_client` send them. The client chooses no model and knows no fallback: the router does. It
repeats a request at most once, if the router recommends it.
"""
