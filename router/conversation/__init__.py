"""Moves a conversation's history to another target."""
