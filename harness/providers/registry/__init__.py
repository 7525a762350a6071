"""The registry: providers, their keys and sign-ins, targets, and the names that mean a model.

Each use case checks the actor's role and writes an audit event. Records and rules are in
`harness.providers`. No module here knows routes: `ctx.uses` tells who needs a provider.
"""
