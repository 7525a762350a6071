"""Other gateways: Swapgate splits their traffic, and converts their configurations."""
