"""Routes, targets, fallback chains and the kill switch, as people change them."""
