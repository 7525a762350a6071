"""The API reads no more of a body than its limit, whatever the body's length is said to be."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from harness.api.frame.request_body import MAX_BODY_BYTES, StrictBody


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    await Request(scope, receive).body()
    await Response()(scope, receive, send)


def test_a_body_without_a_length_is_cut_at_the_limit() -> None:
    sent: list[Message] = []
    pieces = 0

    async def receive() -> Message:
        nonlocal pieces
        pieces += 1
        return {"type": "http.request", "body": b" " * 2**18, "more_body": pieces < 100}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []}
    asyncio.run(StrictBody(_app)(scope, receive, send))

    assert sent[0]["status"] == 413
    assert pieces == MAX_BODY_BYTES // 2**18 + 1
