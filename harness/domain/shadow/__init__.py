"""What shadow mode is: requests mirrored to a candidate, and pairs of answers compared."""
