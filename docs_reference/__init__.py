"""Writes the generated parts of docs/, for `swapgate docs generate` in a checkout. No wheel
contains this package.
"""
