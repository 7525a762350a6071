"""What runs the installation: alerts and their delivery, the audit log, people and their
rights.
"""
