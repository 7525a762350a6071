"""Suites of traffic: logged requests, drawn by a registered rule, whose targets are the answers
that the users got.

`draw` chooses the records, `items` writes them as a suite's items, and `family` compares the
makers of a judge and of the models that it compares.
"""
