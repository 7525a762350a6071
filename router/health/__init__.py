"""The health room knows which targets and provider keys may be asked, and checks those that
nobody asks.
"""
