"""Which targets serve a route: the routing table, its changes with their evidence, the plan of
a request.
"""
