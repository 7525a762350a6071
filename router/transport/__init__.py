"""How a provider is reached, by its kind."""
