"""Fixes a proposal's plans before its candidate's first answer: suites, claim, margin, items,
order and alpha (docs/explanation/statistics.md §1.8, §1.16). `submission` stores them.
"""
