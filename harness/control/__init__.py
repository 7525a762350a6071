"""Use cases: each loads once, decides purely, applies by compare-and-swap, records."""
