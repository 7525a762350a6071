"""Pure rules of failover, breakers and repairs.

Each function takes a state, an observation and the time, and returns the next state. Nothing
here sends a request or reads a clock: `router.health`, `router.request` and `router.upstream`
do.
"""
