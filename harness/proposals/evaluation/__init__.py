"""Measures a proposal and decides its verdict."""
