"""Agents: who holds conversations over HTTP, on which model, and by whose consent it changes."""
