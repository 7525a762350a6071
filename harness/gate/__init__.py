"""The gate turns pairs and counts into evidence and verdicts, without I/O and ports."""
