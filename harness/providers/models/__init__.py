"""Models: names, catalogue, prices, discovery."""
