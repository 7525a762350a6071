"""Records of routes, their proofs and traffic.

A module here has a table with its constraints, and the class that reads and writes it. Rows of
proof are signed: a reader raises SignatureInvalid for a forged row, or leaves it out of a list.
No rule of a swap is decided here.
"""
