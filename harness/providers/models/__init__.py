"""Models: their capabilities, the catalogue, and the rules that find a model by a name.

The modules are pure, except that `catalogue` reads litellm's table.
`harness.providers.registry.named_models` gives them an installation's providers, lists and
keys.
"""
