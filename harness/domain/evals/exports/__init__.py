"""Results of other eval tools become pairs of scores, for reports alone."""
