"""Pure rules of failover, breakers and repairs.

Each function takes a state, an observation and the time, and returns the next state. Only
`router.health`, `router.request` and `router.upstream` send requests and read clocks.
"""
