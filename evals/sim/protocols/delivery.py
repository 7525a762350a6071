"""Sends a simulated answer, whole or streamed at the model's pace, and lets a fault strike
within it: stall, reset, close, truncation, an error event.
"""

from dataclasses import dataclass

from evals.sim.faults import MID_ANSWER, Fault, FaultKind
from evals.sim.protocols.chat_completions import Completion
from evals.sim.protocols.dialect import EndpointDialect
from evals.sim.protocols.http_exchange import HttpExchange, encoded
from evals.sim.protocols.requests import ChatRequest

JSON = "application/json"
SSE = "text/event-stream; charset=utf-8"
PLAIN = "text/plain; charset=utf-8"
OVERLOADED = (503, "This error in mid-answer is simulated.", "overloaded", None)


@dataclass(frozen=True, slots=True)
class StreamPace:
    """Holds waiting times in seconds, already scaled: 0 for none."""

    first_token_s: float
    generation_s: float


async def send_whole(
    exchange: HttpExchange,
    answer: object,
    pace: StreamPace,
    fault: Fault | None,
    dialect: EndpointDialect,
) -> None:
    """An answer in one piece. A fault in mid-answer cuts it after half of its bytes."""
    await exchange.pause(pace.first_token_s + pace.generation_s)
    data = encoded(answer)
    if fault is None or fault.kind not in MID_ANSWER:
        await exchange.whole(200, data, content_type(fault, JSON))
        return
    if fault.kind is FaultKind.ERROR_IN_STREAM:
        await exchange.json(200, dialect.error(*OVERLOADED))
        return
    await exchange.start(200, JSON)
    half = len(data) // 2 if fault.after_chunks or fault.role_first else 0
    if half:
        await exchange.write(data[:half])
    if await survives(exchange, fault, dialect):
        await exchange.write(data[half:], last=True)


async def send_stream(
    exchange: HttpExchange,
    answer: Completion,
    request: ChatRequest,
    pace: StreamPace,
    fault: Fault | None,
    dialect: EndpointDialect,
) -> None:
    """An answer as server-sent events: opening, content, finish. A fault strikes before one."""
    events = dialect.events(answer, request)
    struck = fault if fault and fault.kind in MID_ANSWER else None
    opening, pieces = events.opening(), list(events.content())
    frames = [opening, *pieces, events.finish()]
    at = len(frames)
    if struck:
        before_all = struck.after_chunks == 0 and not struck.role_first
        at = 0 if before_all else 1 + min(struck.after_chunks, len(pieces))
        frames[0] = (dialect.ping if struck.role_first else b"") + frames[0]
    wait_s = pace.generation_s / max(1, len(pieces))
    await exchange.pause(pace.first_token_s)
    await exchange.start(200, content_type(fault, SSE))
    for n, frame in enumerate(frames):
        if struck and n == at and not await survives(exchange, struck, dialect):
            return
        if 0 < n <= len(pieces):
            await exchange.pause(wait_s)
        await exchange.write(frame, last=n == len(frames) - 1)


async def survives(exchange: HttpExchange, fault: Fault, dialect: EndpointDialect) -> bool:
    """Lets the fault strike here; tells whether the answer may go on: only after a stall."""
    match fault.kind:
        case FaultKind.STALL:
            await exchange.pause(fault.delay_s)
            return True
        case FaultKind.RESET | FaultKind.CLOSE:
            await exchange.break_off(reset=fault.kind is FaultKind.RESET)
        case FaultKind.ERROR_IN_STREAM:
            error = dialect.error(*OVERLOADED)
            await exchange.write(dialect.error_event(error), last=True)
        case _:
            await exchange.write(b"", last=True)
    return False


def content_type(fault: Fault | None, right: str) -> str:
    return PLAIN if fault and fault.kind is FaultKind.WRONG_CONTENT_TYPE else right
