"""The simulated provider: an OpenAI-compatible server whose models have a known skill.

It is light on purpose (no Inspect, no scientific library): it starts fast and carries load.
"""
