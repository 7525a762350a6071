"""Provider kinds, addresses, keys, sign-ins, and the models that providers offer."""
