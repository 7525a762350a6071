"""Foundations that every subject stands on."""
