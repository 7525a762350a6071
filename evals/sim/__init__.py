"""The simulated provider is a server whose models have a known skill, in three protocols.

It is light on purpose (no Inspect, no scientific library): it starts fast and carries load.
"""
