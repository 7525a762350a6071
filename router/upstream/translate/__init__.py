"""The translate room asks providers whose protocol is not OpenAI's, with the help
of litellm.
"""
