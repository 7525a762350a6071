"""Other gateways' configurations become Swapgate's."""
