"""Outbound HTTP of the control side: guarded requests to providers, OAuth servers and alert
sinks.
"""
