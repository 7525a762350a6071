"""A simulated provider's faults: kinds, fields, switches, and faults that replace an answer.

`simulator` has the faults within an answer. Clients switch faults by `/sim/faults` (`server`).
"""

import asyncio
import contextlib
import math
import socket
import struct
from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from evals.sim.chat_completions import (
    EndpointDialect,
    Refused,
    encode,
    no_such_model,
)
from evals.sim.profiles import STRICT_FIELDS, AtLeastZero, Share, parse
from harness.frame.errors import InputError

HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
HeaderValue = Annotated[str, Field(pattern=r"^[^\x00-\x08\x0a-\x1f\x7f]*$")]
HTML_PAGE = b"<!doctype html><title>Bad gateway</title><h1>502 Bad gateway</h1><p>simulated</p>"


class FaultKind(StrEnum):
    STATUS = "status"  # an error with `status`, `headers`, `code`, `message`
    NOT_FOUND = "not_found"  # 404 model_not_found, as if the model had been withdrawn
    HANG = "hang"  # no answer for `delay_s`, else until the client leaves
    STALL = "stall"  # silence after `after_chunks`, for `delay_s` or until the client leaves
    RESET = "reset"  # TCP RST before the first byte, or after `after_chunks`
    CLOSE = "close"  # TCP FIN at the same places
    TRUNCATE = "truncate"  # a complete HTTP answer without its finish reason
    ERROR_IN_STREAM = "error_in_stream"  # 200, then an error event after `after_chunks`
    GARBAGE = "garbage"  # 200 with broken or foreign JSON: see `variant`
    HTML = "html"  # `status` (default 200) and an HTML page
    WRONG_CONTENT_TYPE = "wrong_content_type"  # the right answer as text/plain


MID_ANSWER = frozenset({"stall", "reset", "close", "truncate", "error_in_stream"})
GARBAGE: Mapping[str, bytes] = {
    "text": b'{"id": "chatcmpl-sim", "choices": [{"mess',
    "nan": b'{"choices": [{"message": {"content": NaN}}], "usage": Infinity}',
    "nested": b"[" * 10_000 + b"]" * 10_000,
    "no_choices": encode(
        {
            "id": "chatcmpl-sim",
            "object": "chat.completion",
            "choices": [],
        }
    ),
}
DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "html": {"status": 200},
    "stall": {"after_chunks": 1},
    "truncate": {"after_chunks": 1},
}


@dataclass(frozen=True, slots=True, config=STRICT_FIELDS)
class Fault:
    kind: FaultKind
    rate: Share = 1.0  # share of the model's requests with the fault
    status: Annotated[int, Field(ge=200, le=599)] = 500
    code: str | None = None
    message: str = "This error is simulated by a fault switch."
    headers: Mapping[HeaderName, HeaderValue] = field(default_factory=dict)
    delay_s: AtLeastZero | None = None
    # Pieces of content before a fault within an answer; 0 means before the first event. Without
    # streaming, the fault cuts the answer in its middle.
    after_chunks: Annotated[int, Field(ge=0)] = 0
    role_first: bool = False  # send a ping and the role chunk before the fault
    until_count: Annotated[int, Field(ge=0)] | None = None  # the most hits; None for any number
    from_turn: Annotated[int, Field(ge=1)] = 1  # the conversation's first turn with the fault
    variant: Literal["text", "nan", "nested", "no_choices"] = "text"

    @property
    def before_all(self) -> bool:
        return not (self.after_chunks or self.role_first)


def parse_fault(data: object) -> Fault:
    """Reads a fault from a request's body. Raises InputError with the field."""
    if not isinstance(data, dict):
        raise InputError("a fault must be a JSON object with a 'kind'")
    return parse(Fault, {**DEFAULTS.get(str(data.get("kind")), {}), **data}, "fault")


class FaultBook:
    """The switches, one per model. `*` applies to every model without its own switch."""

    def __init__(self) -> None:
        self._faults: dict[str, Fault] = {}
        self._counts: dict[str, tuple[int, int]] = {}  # requests, hits

    def set(self, model: str, fault: Fault) -> None:
        self._faults[model] = fault
        self._counts[model] = (0, 0)

    def clear(self, model: str | None = None) -> None:
        """Removes the fault of a model; without a model, all faults."""
        for name in [*self._faults] if model is None else [model]:
            self._faults.pop(name, None)

    def draw(self, model: str, turn: int = 1) -> Fault | None:
        """Returns the fault for this request, if any. The share is exact to one request.

        Args:
            turn: the place of the request in its conversation, from 1 on.
        """
        name = model if model in self._faults else "*"
        fault = self._faults.get(name)
        if fault is None or turn < fault.from_turn:
            return None
        requests, hits = self._counts[name]
        rounding = 1e-9  # 0.29 * 100 is a little less than 29
        is_due = math.floor((requests + 1) * fault.rate + rounding) > math.floor(
            requests * fault.rate + rounding
        )
        is_hit = is_due and (fault.until_count is None or hits < fault.until_count)
        self._counts[name] = requests + 1, hits + is_hit
        return fault if is_hit else None


TRANSPORT = "swapproof.transport"
LINGER_ZERO = struct.pack("ii", 1, 0)
FLUSH_S = 0.02


class HttpExchange(Request):
    """A request and its answer. extra: headers of every answer."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        super().__init__(scope, receive, send)
        self.path: str = scope["path"]
        self.extra: Mapping[str, str] = {}
        self.started = False

    @property
    def key(self) -> str:
        """The request's key, from any of the usual headers; empty without one."""
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
        return bearer or self.headers.get("x-api-key") or self.headers.get("api-key", "")

    async def reply(self, status: int, value: object) -> None:
        """Sends a whole answer in JSON."""
        await self.whole(status, encode(value), "application/json")

    async def whole(
        self,
        status: int,
        body: bytes,
        content_type: str,
    ) -> None:
        await self.start(status, content_type, length=len(body))
        await self.write(body, last=True)

    async def start(
        self,
        status: int,
        content_type: str,
        *,
        length: int | None = None,
    ) -> None:
        """Sends the head of an answer.

        Args:
            length: of the body; None for a stream.
        """
        sized = {} if length is None else {"content-length": str(length)}
        headers = [
            (name.lower().encode(), value.encode("latin-1", "replace"))
            for name, value in {
                "content-type": content_type,
                **sized,
                **self.extra,
            }.items()
        ]
        self.started = True
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": headers,
            }
        )

    async def write(self, body: bytes, *, last: bool = False) -> None:
        await self._send(
            {
                "type": "http.response.body",
                "body": body,
                "more_body": not last,
            }
        )

    async def pause(self, seconds: float | None) -> None:
        """Waits; forever if None. Raises ClientDisconnect when the client leaves."""
        if seconds is not None and seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                while (await self._receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            return
        raise ClientDisconnect

    async def break_off(self, *, reset: bool) -> None:
        """Ends the connection within an answer, and returns once the client has gone.

        Args:
            reset: by a TCP reset, which loses data on its way, instead of an orderly end.
        """
        transport = self.scope["extensions"][TRANSPORT]
        if self.started:
            await asyncio.sleep(FLUSH_S)
        if reset:
            # With a linger time of 0, close() sends RST instead of FIN.
            connection: socket.socket = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
            transport.abort()
        else:
            transport.close()
        with contextlib.suppress(ClientDisconnect):
            await self.pause(None)


async def replace_answer(
    exchange: HttpExchange,
    fault: Fault,
    model: str,
    dialect: EndpointDialect,
) -> bool:
    """Applies a fault that replaces the whole answer. Returns False if an answer follows."""
    exchange.extra = fault.headers
    match fault.kind:
        case FaultKind.STATUS:
            error = dialect.error(Refused(fault.status, fault.message, fault.code))
            await exchange.reply(fault.status, error)
        case FaultKind.NOT_FOUND:
            await exchange.reply(404, dialect.error(no_such_model(model)))
        case FaultKind.GARBAGE:
            await exchange.whole(200, GARBAGE[fault.variant], "application/json")
        case FaultKind.HTML:
            await exchange.whole(fault.status, HTML_PAGE, "text/html; charset=utf-8")
        case FaultKind.RESET | FaultKind.CLOSE if fault.before_all:
            await exchange.break_off(reset=fault.kind is FaultKind.RESET)
        case FaultKind.HANG:
            await exchange.pause(fault.delay_s)
            return False
        case _:
            return False
    return True
