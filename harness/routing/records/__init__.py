"""Records of routes, their proofs and traffic.

A module has a table with its constraints, and the class that reads and writes it. Rows of proof
are signed: a reader raises SignatureInvalid for a forged row, or omits it from a list. The
rules of a swap are in `harness.routing` and `harness.gate`.
"""
