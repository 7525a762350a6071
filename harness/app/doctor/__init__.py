"""The checks of `swapgate doctor`: the installation, its providers, and tool loops of
a target.
"""
