"""One way of a client's request through the router, from the parsed body to the last byte.

The order is: `model_endpoint` prepares, `planner` orders the targets, `dispatch` makes the
attempts, `routed_response` sends the answer, and `request_observers` tells the observers.
"""
