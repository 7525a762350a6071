"""Chat completions as OpenAI defines them: requests, answers, streams and their
translation.

A chat is also the common form into which other endpoints are translated.
"""
