"""Providers, their credentials and sign-ins, and the models that they offer."""
