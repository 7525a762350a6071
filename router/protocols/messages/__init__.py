"""Messages as Anthropic defines them.

`dialect` serves targets that speak the protocol. For other targets, `message_request` makes
a chat, and `answer_writer` writes its answer.
"""
