"""Which targets serve a route: table, changes, evidence, plan."""
