"""Agents hold conversations over HTTP: on which model, and by whose consent it changes."""
