"""The runner of an eval: it asks a target every item of a suite, and scores the answers."""
