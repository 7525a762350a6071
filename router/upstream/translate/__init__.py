"""Calls providers whose protocol is not OpenAI's, with litellm."""
