"""Routes and the conditions of their changes: the routing table, plans of requests, evidence,
proposals, holds, captures, shadows, and their stored records.

The rules are pure, and `records` stores their values. `harness.routing.control` has the use
cases of routes. `harness.proposals` and `harness.canary` drive proposals. The router serves
from a `Snapshot` of the routing table.
"""
