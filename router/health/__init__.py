"""The health room knows which targets and provider keys may be asked."""
