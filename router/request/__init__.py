"""The request room takes one model request from its body to its answer."""
