"""Sends a request by the official client, classifies its end, and sums up a row's requests."""

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple, assert_never

import openai

from benchmarks.faults.catalogue import Expect, Row

WORDS: Final = 12
_WORD: Final = re.compile(r"[a-z]\d+")


class Ending(StrEnum):
    """How a request ended for its client."""

    WHOLE = "whole"
    ERROR = "error"  # an exception that the client can act upon
    SPLICED = "spliced"  # words of two answers are mixed, or a word is missing or repeated
    FALSE_END = "false_end"  # the answer ended without an error, but is not whole
    CANCELLED = "cancelled"  # the client left, and the provider knew within a second
    ORPHANED = "orphaned"  # the client left, but the provider continued


def words(letter: str) -> list[str]:
    """Returns the words of a whole answer."""
    return [f"{letter}{number}" for number in range(WORDS)]


def ending(text: str, *, failed: bool) -> Ending:
    """Classifies an answer.

    Args:
        text: all received content.
        failed: the client got an error.
    """
    found = text.split()
    begun = words(found[0][0]) if found else []
    if found != begun[: len(found)] and all(_WORD.fullmatch(word) for word in found):
        return Ending.SPLICED
    if failed:
        return Ending.ERROR
    return Ending.WHOLE if found and found == begun else Ending.FALSE_END


LEAVE_AFTER: Final = 3  # pieces of content
NOTICE_S: Final = 1.0  # the provider must notice the hang-up within this time

# Returns the numbers of the requests that the providers saw hang up.
Left = Callable[[], Awaitable[set[str]]]


class RequestResult(NamedTuple):
    """The result of a request. begun: seconds since its row's first request. said, status: text
    and HTTP status of the client's error; 0 without a status.
    """

    number: str
    stream: bool
    begun: float
    ending: Ending
    latency_s: float
    said: str = ""
    status: int = 0


class Question(NamedTuple):
    """A request. number: unique, and in the prompt, so that the provider can count its calls.
    begun: as in RequestResult.
    """

    number: str
    model: str
    stream: bool
    headers: Mapping[str, str]
    begun: float

    def body(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": f"Go on, request-{self.number}"}],
            "extra_headers": dict(self.headers),
        }


async def ask(client: openai.AsyncOpenAI, question: Question) -> RequestResult:
    """Sends a request. Raises nothing: the result's ending shows a failure."""
    started = time.perf_counter()
    heard = ""
    failure = None
    try:
        if question.stream:
            chunks = await client.chat.completions.create(**question.body(), stream=True)
            async for chunk in chunks:
                heard += _text(chunk)
        else:
            done = await client.chat.completions.create(**question.body())
            heard = done.choices[0].message.content or ""
    except Exception as error:  # noqa: BLE001 - every kind is a failed request
        failure = error
    how = ending(heard, failed=failure is not None)
    return request_result(question, how, started, failure)


async def leave(
    client: openai.AsyncOpenAI,
    question: Question,
    left: Left,
) -> RequestResult:
    """Hangs up in mid-stream. The ending shows whether the provider noticed within NOTICE_S."""
    started = time.perf_counter()
    heard = ""
    failure = None
    how = Ending.ERROR
    try:
        chunks = await client.chat.completions.create(**question.body(), stream=True)
        async for chunk in chunks:
            heard += _text(chunk)
            if len(heard.split()) == LEAVE_AFTER:
                break
        await chunks.close()
        await asyncio.sleep(NOTICE_S)
        how = Ending.CANCELLED if question.number in await left() else Ending.ORPHANED
    except Exception as error:  # noqa: BLE001 - as above
        failure = error
    return request_result(question, how, started, failure)


def request_result(
    question: Question,
    how: Ending,
    started: float,
    failure: Exception | None,
) -> RequestResult:
    return RequestResult(
        question.number,
        question.stream,
        question.begun,
        how,
        time.perf_counter() - started,
        f"{type(failure).__name__}: {failure}"[:300] if failure else "",
        failure.status_code if isinstance(failure, openai.APIStatusError) else 0,
    )


def _text(chunk: Any) -> str:
    return (chunk.choices[0].delta.content or "") if chunk.choices else ""


CLIENTS_OWN: Final = (400, 413, 422)


@dataclass(frozen=True)
class Figures:
    """The figures of a row with one client. retries: the client's. right: number of requests
    with the expected outcome. said: an unexpected error, as an example.

    calls, warm_calls: calls of providers, for all requests and for the second half of the time.
    p99_s: latency of the whole answers; NaN without any.
    """

    number: int
    title: str
    expect: Expect
    retries: int
    requests: int
    right: int
    endings: Mapping[Ending, int]
    calls: int
    warm_requests: int
    warm_calls: int
    p99_s: float
    said: str


def figures(
    row: Row,
    retries: int,
    results: Sequence[RequestResult],
    calls: Mapping[str, int],
) -> Figures:
    """Sums up a row.

    Args:
        calls: the number of calls by the request's number.
    """
    half = max((request.begun for request in results), default=0.0) / 2
    warm = [request for request in results if request.begun >= half]
    return Figures(
        number=row.number,
        title=row.title,
        expect=row.expect,
        retries=retries,
        requests=len(results),
        right=sum(right(row.expect, request) for request in results),
        endings=dict(Counter(request.ending for request in results)),
        calls=sum(calls.get(request.number, 0) for request in results),
        warm_requests=len(warm),
        warm_calls=sum(calls.get(request.number, 0) for request in warm),
        p99_s=p99(request.latency_s for request in results if request.ending is Ending.WHOLE),
        said=next(
            (request.said for request in results if not right(row.expect, request)),
            "",
        ),
    )


def right(expect: Expect, asked: RequestResult) -> bool:
    """Returns whether the request ended as its client may expect."""
    match expect:
        case Expect.WHOLE:
            return asked.ending is Ending.WHOLE
        case Expect.HONEST:
            broke = asked.stream and asked.ending is Ending.ERROR
            return broke or asked.ending is Ending.WHOLE
        case Expect.TOLD:
            return asked.status in CLIENTS_OWN
        case Expect.LEFT:
            return asked.ending is Ending.CANCELLED
        case Expect.DOWN:
            return asked.ending is Ending.ERROR
        case _:
            assert_never(expect)


def p99(values: Iterable[float]) -> float:
    """Returns the 99th percentile (nearest rank); NaN without values."""
    ordered = sorted(values)
    return ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else math.nan


HEADS = (
    "fault",
    "client",
    "requests",
    "as it should",
    "whole",
    "spliced",
    "false ends",
    "calls",
    "calls once warm",
    "+p99 ms",
)


def cells(figures: Sequence[Figures], direct_p99_s: float) -> list[tuple[object, ...]]:
    """Builds the table.

    Args:
        direct_p99_s: the provider's p99 without a gateway.
    """
    return [HEADS, *(_line(row, direct_p99_s) for row in figures)]


def _line(row: Figures, direct_p99_s: float) -> tuple[object, ...]:
    return (
        f"{row.number} {row.title}",
        "retries" if row.retries else "plain",
        row.requests,
        share(row.right, row.requests),
        share(row.endings.get(Ending.WHOLE, 0), row.requests),
        row.endings.get(Ending.SPLICED, 0),
        row.endings.get(Ending.FALSE_END, 0),
        row.calls / row.requests,
        row.warm_calls / row.warm_requests if row.warm_requests else None,
        (row.p99_s - direct_p99_s) * 1000,
    )


def share(part: int, whole: int) -> str:
    """Formats a share in percent, rounded down, so that `100.0 %` means all."""
    return f"{math.floor(part / whole * 1000) / 10:.1f} %"
