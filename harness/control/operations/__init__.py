"""What keeps an installation running: alerts, the audit log, keys, captures, lists
for people.
"""
