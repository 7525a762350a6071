"""Writes the generated parts of docs/, for `swapgate docs generate` in a checkout. It is in no
wheel.
"""
