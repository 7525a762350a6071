"""Routes, their changes, traffic and scorecard."""
