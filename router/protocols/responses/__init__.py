"""Responses as OpenAI defines them.

`dialect` serves targets that speak the protocol. For other targets, `response_request`
makes a chat, and `answer_writer` writes its answer.
"""
