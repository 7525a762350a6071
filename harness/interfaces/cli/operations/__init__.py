"""Commands for an installation: set-up, processes, database, keys, audit, alerts."""
