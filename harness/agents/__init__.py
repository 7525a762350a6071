"""Agents, sessions, model switches and spawn."""
