"""Joins the subjects: only these modules choose adapters and connect them to use cases."""
