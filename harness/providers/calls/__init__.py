"""The control plane's own calls to providers: checks, lists of models and sign-ins.

Clients' requests do not pass here: `router.upstream` sends them. All calls go through
`guarded_http`, which refuses forbidden addresses.
"""
