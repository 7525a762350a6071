"""Calls to providers outside of traffic."""
