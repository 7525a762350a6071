"""The base of the router's packages: bodies, replies, failures and limits.

These modules know no route, no observer and no connection. Every other package may import
them.
"""
