"""A strict provider on loopback: it refuses what the real one refuses."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.site import http_thread
from tests.support.site.http_thread import Exchange

Json = dict[str, Any]
KEY: Final = "wire-secret"
NUMBERS: Final = itertools.count(1)  # of calls: no provider gives two calls one id


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


class Refused(Exception):
    """body: the error as the real provider words it."""

    def __init__(
        self,
        status: int,
        body: Json,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(json.dumps(body))
        self.status = status
        self.body = body
        self.headers = headers or {}


@dataclass(frozen=True)
class Usage:
    """cached, written: parts of the input. reasoning: part of the output."""

    input: int = 11
    output: int = 7
    cached: int = 0
    written: int = 0
    reasoning: int = 0


@dataclass(frozen=True)
class Reply:
    """What the model answers, whatever the protocol. calls: name and arguments.

    stop: end, length, tools, sequence or refusal.
    """

    text: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, Json], ...] = ()
    stop: str = "end"
    usage: Usage = Usage()


@dataclass(frozen=True)
class Turn:
    """calls: name and arguments; results: texts; signed: signatures that came back."""

    role: str
    text: str = ""
    images: int = 0
    calls: tuple[tuple[str, Json], ...] = ()
    results: tuple[str, ...] = ()
    signed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """A request, whatever the protocol. choice: auto, any, none, or the tool's name."""

    system: str
    turns: tuple[Turn, ...]
    tools: tuple[str, ...] = ()
    choice: str = "auto"
    serial: bool = False
    schema: bool = False
    thinks: bool = False
    stops: tuple[str, ...] = ()
    marks: int = 0
    limit: int | None = None
    temperature: float | None = None


@dataclass(frozen=True)
class WireRequest:
    path: str
    headers: Mapping[str, str]
    body: Json


@dataclass
class Strict:
    """read: raises Refused, else what was asked. malformed: the provider's words for a request
    that has not the shape it must have, where `read` has none of its own. whole, events: a
    reply in the wire's form.

    answers: what to reply to a request, instead of `reply`; raises Refused. fault: what the
    next request gets instead. cut: bytes a piece of a stream has.
    """

    read: Callable[[WireRequest], Reading]
    streams: Callable[[WireRequest], bool]
    whole: Callable[[Reply], Json]
    events: Callable[[Reply], list[bytes]]
    api_path: str
    malformed: Callable[[str], Refused]
    reply: Reply = field(default_factory=Reply)
    answers: Callable[[Reading], Reply] | None = None
    fault: Refused | None = None
    cut: int = 7
    stream_type: str = "text/event-stream"
    port: int = 0
    readings: list[Reading] = field(default_factory=list)
    asked: list[WireRequest] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def api_base(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.api_path}"


def _object(strict: Strict, raw: bytes) -> Json:
    try:
        found = json.loads(raw)
    except ValueError as error:
        raise strict.malformed(f"the body is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise strict.malformed("the body is no JSON object")
    return found


def _read(strict: Strict, asked: WireRequest) -> Reading:
    """What lacks a field or has another type is the client's fault, and is answered so."""
    try:
        return strict.read(asked)
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        AssertionError,
    ) as error:
        raise strict.malformed(f"malformed: {type(error).__name__}: {error}") from error


def play(
    strict: Strict,
    asked: WireRequest,
    reply: Callable[[Reading], Reply],
    refused: list[str] | None = None,
) -> ScriptedTurn:
    """The provider's answer to a request.

    Args:
        refused: grows by its words where it refuses it.
    """
    try:
        said = reply(strict.read(asked))
    except Refused as refusal:
        (refused if refused is not None else []).append(str(refusal))
        return whole_turn(refusal.body, refusal.status)
    if strict.streams(asked):
        head = {"content-type": strict.stream_type}
        return ScriptedTurn(headers=head, steps=tuple(strict.events(said)))
    return whole_turn(strict.whole(said))


def whole_turn(body: Json, status: int = 200) -> ScriptedTurn:
    return ScriptedTurn(status, steps=(json.dumps(body).encode(),))


@contextmanager
def serving(strict: Strict) -> Iterator[Strict]:
    class Handler(Exchange):
        def exchange(self) -> None:
            raw = self.received_body()
            headers = self.received_headers()
            try:
                asked = WireRequest(self.path, headers, _object(strict, raw))
                strict.asked.append(asked)
                if strict.fault is not None:
                    raise strict.fault
                reading = _read(strict, asked)
                strict.readings.append(reading)
                reply = strict.answers(reading) if strict.answers else strict.reply
            except Refused as refusal:
                strict.refused.append(str(refusal))
                self._whole(refusal.status, refusal.body, refusal.headers)
                return
            if strict.streams(asked):
                self._stream(b"".join(strict.events(reply)))
            else:
                self._whole(200, strict.whole(reply), {})

        def _whole(
            self,
            status: int,
            body: Json,
            headers: Mapping[str, str],
        ) -> None:
            sent = {"content-type": "application/json", **headers}
            self.answer(status, json.dumps(body).encode(), sent)

        def _stream(self, raw: bytes) -> None:
            self.send_response(200)
            self.send_header("content-type", strict.stream_type)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for start in range(0, len(raw), strict.cut):
                piece = raw[start : start + strict.cut]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

    with http_thread.serving(Handler) as port:
        strict.port = port
        yield strict
