"""The upstream room sends one attempt to a provider over pooled connections."""
