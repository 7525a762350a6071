"""The registry: providers, their keys and sign-ins, targets, and the names that mean a model.

Each use case checks the actor's role and writes an audit event. Records and rules are in
`harness.providers`; no module here knows a route's settings, except to find a provider's uses.
"""
