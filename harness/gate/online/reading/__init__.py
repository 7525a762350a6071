"""Reads a canary's exposures: groups them into blocks, and turns their values into counts,
ranks and bets for the evidence.
"""
