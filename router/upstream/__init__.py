"""The way of a request to a provider: conversations, translations, repairs and connections.

A transport makes one attempt. Retries, limits of time and the choice of a target are in
`router.request`.
"""
