"""The simulated provider: a server whose models have a known skill, in three protocols.

It uses neither Inspect nor a scientific library, so it starts fast and carries load.
"""
