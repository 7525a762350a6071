"""Signed snapshots, their manifest, proofs, and faults of signed rows."""
