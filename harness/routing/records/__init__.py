"""What is stored of routes, their proofs and traffic."""
