"""Reads and writes the wire formats of clients and providers.

One folder for each protocol: `chat`, `messages`, `responses`; embeddings are in
`endpoints`. Nothing here opens a connection or chooses a target. Protocols that only
providers speak are in `router.upstream.translate`.
"""
