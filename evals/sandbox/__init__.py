"""The sandbox runs a model's code: one contained process for the answer, another for its tests.

The two talk through pipes, in plain values. Only the tests' process can say that they passed.
"""
