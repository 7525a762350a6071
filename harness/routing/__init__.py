"""Routes and the conditions of their changes: the routing table, plans of requests, evidence,
proposals, holds, captures, shadows, and their stored records.

Rules here are pure, and `records` stores their values. Use cases of routes are in
`harness.routing.control`, proposals are driven in `harness.proposals` and `harness.canary`, and
the router serves from a `Snapshot` of this subject.
"""
