"""These use cases lead from a proposal to its verdict, for those who propose and those who
approve.
"""
