"""Proposals: submission, review, decision."""
