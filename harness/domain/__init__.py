"""The domain holds the product's nouns and rules in plain Python, without I/O, clock, logging
or randomness.
"""
