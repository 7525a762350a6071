"""Commands that operate an installation: set-up, processes, database, keys, audit, alerts."""
