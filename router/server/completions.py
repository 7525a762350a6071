"""Serves a completion (OpenAI's legacy endpoint) as a chat: the rest of the router sees a chat
alone, and the client a completion.
"""

from harness.domain.errors import InputError
from harness.domain.routing.capabilities import Endpoint
from router.protocols.completions import CompletionBody, chat_of_completion
from router.protocols.endpoints import DIALECTS
from router.request.body import FieldError
from router.server.asgi import Message, Scope, Send
from router.server.headers import JSON
from router.server.replies import Reply, error_reply

_CHAT = f"/v1{DIALECTS[Endpoint.CHAT].path}"


def as_chat(scope: Scope, send: Send, body: bytes) -> Reply | tuple[Scope, Send, bytes]:
    """Returns the chat for a completion, and a `send` that turns its answer back; or refuses
    what no chat can do.
    """
    try:
        chat = chat_of_completion(body)
    except InputError as error:
        param = error.param if isinstance(error, FieldError) else None
        code = "unsupported_parameter" if param else "invalid_json"
        return error_reply(400, f"the request body: {error}", code, param=param)
    return {**scope, "path": _CHAT}, _turning(send), chat


def _turning(send: Send) -> Send:
    """A whole answer's head waits for its length."""
    head: Message = {}
    turned = CompletionBody(events=True)

    async def turning_send(message: Message) -> None:
        nonlocal head, turned
        if message["type"] == "http.response.start":
            whole = JSON in message["headers"]
            turned = CompletionBody(events=not whole)
            if not whole:
                await send(message)
            else:
                head = message
            return
        more = bool(message.get("more_body"))
        told = turned.feed(message.get("body", b""), more=more)
        if head and not more:
            kept = [line for line in head["headers"] if line[0] != b"content-length"]
            length = (b"content-length", b"%d" % len(told))
            await send({**head, "headers": [*kept, length]})
        if not (head and more):
            await send({**message, "body": told})

    return turning_send
