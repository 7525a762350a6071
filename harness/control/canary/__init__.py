"""A canary from its opening to its end: the driver, holds, the bake, and what
people do to it.
"""
