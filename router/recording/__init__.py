"""The recording room counts what requests did, and writes it in the background."""
