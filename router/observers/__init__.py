"""Observers watch requests. Their faults never cost a user an answer."""
