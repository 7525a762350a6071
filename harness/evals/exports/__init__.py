"""Results of other eval tools."""
