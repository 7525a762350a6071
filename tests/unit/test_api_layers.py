from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from harness.interfaces.api.frame.error_status import ErrorGuard
from harness.interfaces.api.frame.request_body import (
    MAX_BODY_BYTES,
    StrictBody,
)
from harness.operations.single_sign_on import MAX_ADDRESSES, FailedAttempts
from tests.support.control.counting_ids import CountingRandomIds
from tests.support.control.manual_clock import ManualClock

SCOPE: dict[str, Any] = {
    "type": "http",
    "path": "/",
    "query_string": b"",
    "headers": [],
    "method": "POST",
}
GONE: Message = {"type": "http.disconnect"}


class Echo:
    """Reads the body in one piece, then answers with it."""

    def __init__(self) -> None:
        self.got: list[Message] = []

    async def __call__(
        self,
        _: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self.got = [await receive(), await receive()]
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [],
            }
        )
        await send({"type": "http.response.body", "body": self.got[0]["body"]})


async def run(
    app: Any,
    *messages: Message,
    scope: dict[str, Any] = SCOPE,
) -> list[Message]:
    coming: Iterator[Message] = iter(messages)
    sent: list[Message] = []

    async def receive() -> Message:
        return next(coming)

    async def send(message: Message) -> None:
        sent.append(message)

    await app(dict(scope), receive, send)
    return sent


def piece(body: bytes, *, more: bool) -> Message:
    return {
        "type": "http.request",
        "body": body,
        "more_body": more,
    }


async def test_a_body_in_pieces_arrives_in_one_and_then_the_client_is_heard() -> None:
    echo = Echo()
    first = piece(b'{"a"', more=True)
    last = piece(b": 1}", more=False)
    sent = await run(StrictBody(echo), first, last, GONE)
    assert sent[1]["body"] == b'{"a": 1}'
    assert echo.got[1] == GONE


async def test_a_body_without_a_length_is_cut_at_the_limit() -> None:
    pieces = [piece(b" " * 2**18, more=True)] * (MAX_BODY_BYTES // 2**18 + 1)
    (head, _) = await run(StrictBody(Echo()), *pieces)
    assert head["status"] == 413


async def test_half_a_body_has_no_effect_and_no_answer() -> None:
    echo = Echo()
    layers = ErrorGuard(StrictBody(echo), chance=CountingRandomIds())
    assert await run(layers, piece(b"", more=True), GONE) == []
    assert not echo.got


async def test_a_fault_after_the_answer_began_is_the_servers_to_end() -> None:
    async def breaks(
        _: Scope,
        __: Receive,
        send: Send,
    ) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [],
            }
        )
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        await run(ErrorGuard(breaks, chance=CountingRandomIds()))


async def test_what_is_not_http_passes_through() -> None:
    scopes: list[Scope] = []

    async def app(
        scope: Scope,
        _: Receive,
        __: Send,
    ) -> None:
        scopes.append(scope)

    layers = ErrorGuard(StrictBody(app), chance=CountingRandomIds())
    await run(layers, scope={"type": "lifespan"})
    assert scopes == [{"type": "lifespan"}]


def test_after_the_burst_one_comes_back_a_second() -> None:
    clock = ManualClock()
    attempts = FailedAttempts(clock, burst=3, per_s=1.0)
    for _ in range(3):
        assert attempts.wait_s("a") == 0
        attempts.failed("a")

    assert attempts.wait_s("a") == 1
    assert attempts.wait_s("b") == 0
    clock.advance(0.5)
    assert attempts.wait_s("a") == 0.5
    clock.advance(0.5)
    assert attempts.wait_s("a") == 0
    attempts.failed("a")
    assert attempts.wait_s("a") == 1


def test_a_set_wall_clock_frees_nobody() -> None:
    clock = ManualClock()
    attempts = FailedAttempts(clock, burst=1)
    attempts.failed("a")
    clock.jump(3600)
    assert attempts.wait_s("a") == 1


def test_the_memory_is_bounded_and_forgets_the_oldest_failure() -> None:
    attempts = FailedAttempts(ManualClock(), burst=1)
    for number in range(MAX_ADDRESSES + 1):
        attempts.failed(str(number))
    assert attempts.wait_s("0") == 0
    assert attempts.wait_s("1") == 1


@given(st.lists(st.floats(0, 5), max_size=60))
def test_no_rhythm_gets_more_than_the_burst_and_one_a_second(pauses: list[float]) -> None:
    clock = ManualClock()
    attempts = FailedAttempts(clock, burst=3, per_s=1.0)
    failed = 0
    for pause in pauses:
        clock.advance(pause)
        if attempts.wait_s("a") == 0:
            attempts.failed("a")
            failed += 1
    # Rounding of the sum of pauses may give one more at the very edge.
    assert failed <= 3 + clock.monotonic() + 1e-6
