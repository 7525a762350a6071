"""`swapproof attach`: reads a team's traffic where it is recorded, and says what a swap needs.

It writes nothing there, and sends contents nowhere.
"""
