"""Records of routes, their proofs and traffic."""
