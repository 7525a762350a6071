"""Takes one model request from its body to its answer."""
