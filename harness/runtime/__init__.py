"""Adapters to the machine: clock, chance, subprocesses, schedule. No rules."""
