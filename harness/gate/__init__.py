"""The gate judges: it turns pairs and counts into evidence and verdicts, without I/O and ports.
No I/O, no ports.
"""
