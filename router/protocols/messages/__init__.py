"""Messages as Anthropic defines them."""
