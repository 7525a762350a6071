"""The reference pages that `swapgate docs generate` writes from the registries in the code."""
