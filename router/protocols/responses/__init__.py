"""Responses as OpenAI defines them."""
