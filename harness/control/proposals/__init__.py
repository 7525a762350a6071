"""Use cases that lead from a proposal to its verdict, its approval and its proof."""
