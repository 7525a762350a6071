"""Agents: created, talked to and kept, on behalf of a data key, a person or this machine."""
