"""The agents process and the router: its calls of models for agents, and the requests for
`/agents` that the router passes through to it.
"""
