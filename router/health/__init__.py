"""Knows which targets and provider keys the router may use."""
