"""The signatures of rows, the signed manifest of a snapshot, and the digests that the audit
log keeps.
"""
