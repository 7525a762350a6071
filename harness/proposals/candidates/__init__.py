"""Candidates, their costs and their rounds."""
