"""Commands for routes, models, fallback chains, failovers and the kill switch."""
