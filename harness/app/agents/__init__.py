"""The joins of the agents process: its tools and how it calls models."""
