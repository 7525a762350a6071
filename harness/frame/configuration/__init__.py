"""Files that people write: YAML with the place of each value, `.env`, converted configurations.

The keys of swapproof.yaml are in `harness.app.configuration`, because it knows every subject.
"""
