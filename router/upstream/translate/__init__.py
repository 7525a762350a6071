"""Translates chats into the protocols of Anthropic, AWS and Google, and their answers back."""
