"""Writes the generated parts of docs/, for `swapproof docs generate` in a checkout. No wheel
contains this package.
"""
