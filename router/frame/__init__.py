"""The base of the router's packages: bodies, replies, failures and limits."""
