"""Serves OpenAI's legacy completions as chats.

The chat takes the usual way through the router, and its answer is converted back while it
is sent. So targets, routes and observers know chats only. A part of a completion without a
counterpart is refused, not dropped.
"""

import json
from collections.abc import Mapping
from typing import Final

from harness.frame.errors import InputError
from harness.providers.models.capabilities import Endpoint
from router.frame.asgi import Message, Scope, Send
from router.frame.body import FieldError
from router.frame.json_spans import parse_object
from router.frame.replies import JSON, Reply, error_reply
from router.protocols.endpoints import DIALECTS

_DATA: Final = b"data:"
# Fields that chats do not support, each with the JSON values that have no effect.
_NOT_IN_CHATS: Final[Mapping[str, tuple[str, ...]]] = {
    "best_of": ("null", "1"),
    "echo": ("null", "false"),
    "logprobs": ("null", "false"),
    "suffix": ("null", '""'),
}


def completion_to_chat(body: bytes) -> bytes:
    """Converts a completion's body. Raises InputError for bad JSON, and FieldError for a
    field that chats do not have.
    """
    parse_object(body)
    fields: dict[str, object] = json.loads(body)
    for name, neutral_values in _NOT_IN_CHATS.items():
        if json.dumps(fields.get(name)) not in neutral_values:
            raise FieldError(
                name,
                f"`{name}` has no counterpart in chats, which answer here",
            )
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise FieldError(
            "prompt",
            "`prompt` must be one text, not a list of texts or tokens",
        )
    other_fields = {
        name: value for name, value in fields.items() if name not in {*_NOT_IN_CHATS, "prompt"}
    }
    return json.dumps(
        other_fields | {"messages": [{"role": "user", "content": prompt}]}
    ).encode()


def chat_to_completion(body: bytes) -> bytes:
    """Converts an answer or a chunk; returns any other body, such as an error, unchanged."""
    chat = json.loads(body)
    choices = chat.get("choices")
    if not isinstance(choices, list):
        return body
    completion = {
        **chat,
        "id": "cmpl-" + str(chat.get("id") or "").removeprefix("chatcmpl-"),
        "object": "text_completion",
        "choices": [_convert_choice(choice) for choice in choices],
    }
    return json.dumps(completion, ensure_ascii=False).encode()


def _convert_choice(choice: Mapping[str, object]) -> dict[str, object]:
    message = choice.get("message") or choice.get("delta")
    text = message.get("content") if isinstance(message, Mapping) else None
    return {
        "text": text or "",
        "index": choice.get("index", 0),
        "logprobs": None,
        "finish_reason": choice.get("finish_reason"),
    }


class CompletionBody:
    """Converts a chat's answer. Without a stream, it yields nothing before the end.

    events: whether the answer is an event stream.
    """

    def __init__(self, *, events: bool) -> None:
        self._events = events
        self._rest = b""

    def feed(self, data: bytes, *, more: bool) -> bytes:
        """Takes a piece of the answer; returns the bytes to send for it.

        Args:
            more: False for the last piece.
        """
        self._rest += data
        if not self._events:
            return b"" if more else chat_to_completion(self._rest)
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest if more else b""
        body = b"".join(_convert_line(line) + b"\n" for line in lines)
        return body if more else body + rest


def _convert_line(line: bytes) -> bytes:
    data = line.removeprefix(_DATA).lstrip()
    if not (line.startswith(_DATA) and data.startswith(b"{")):
        return line
    return b"%b %b" % (_DATA, chat_to_completion(data))


_CHAT = f"/v1{DIALECTS[Endpoint.CHAT].path}"


def as_chat(
    scope: Scope,
    send: Send,
    body: bytes,
) -> Reply | tuple[Scope, Send, bytes]:
    """Returns the chat and a `send` that converts its answer back, or a refusal."""
    try:
        chat = completion_to_chat(body)
    except InputError as error:
        param = error.param if isinstance(error, FieldError) else None
        code = "unsupported_parameter" if param else "invalid_json"
        return error_reply(400, f"the request body: {error}", code, param=param)
    return {**scope, "path": _CHAT}, _wrap_send(send), chat


def _wrap_send(send: Send) -> Send:
    """Holds the head of a whole answer back until the length of its body is known."""
    head: Message = {}
    completion = CompletionBody(events=True)

    async def send_completion(message: Message) -> None:
        nonlocal head, completion
        if message["type"] == "http.response.start":
            is_whole = JSON in message["headers"]
            completion = CompletionBody(events=not is_whole)
            if not is_whole:
                await send(message)
            else:
                head = message
            return
        more = bool(message.get("more_body"))
        body = completion.feed(message.get("body", b""), more=more)
        if head and not more:
            other_headers = [line for line in head["headers"] if line[0] != b"content-length"]
            length = (b"content-length", b"%d" % len(body))
            await send({**head, "headers": [*other_headers, length]})
        if not (head and more):
            await send({**message, "body": body})

    return send_completion
