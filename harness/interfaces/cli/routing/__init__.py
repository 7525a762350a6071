"""Commands about routes, models, fallback chains, failovers and the kill switch."""
