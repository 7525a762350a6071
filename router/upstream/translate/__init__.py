"""The translate room asks providers whose protocol is not OpenAI's, with litellm's help."""
