"""The routing table as requests read it: one immutable revision in memory, kept up to date."""
