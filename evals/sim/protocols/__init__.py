"""The protocols of the simulated provider: what each endpoint accepts, and how it answers."""
