"""What providers are: their kinds, addresses, keys and sign-ins, and the models that they
offer.
"""
