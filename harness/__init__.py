"""Swapproof's harness: the one writer of the routing table, and only with proof in its hand."""

__version__ = "0.1.0"
