"""The joins: the only modules of the harness that pick adapters and connect them."""
