"""Planning before money or traffic is spent: sample sizes, costs, and how long a
canary takes.
"""
