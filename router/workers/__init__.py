"""The workers room starts, watches and replaces a router's worker processes."""
