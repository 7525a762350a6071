"""One request by the official client, and how it ended."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

import openai

WORDS: Final = 12
_WORD: Final = re.compile(r"[a-z]\d+")


class Ending(StrEnum):
    """How a request ended for its client."""

    WHOLE = "whole"
    ERROR = "error"  # an exception that the client can act upon
    SPLICED = "spliced"  # words of two answers, or one twice, or one left out
    FALSE_END = "false_end"  # it looks complete, and is not the answer
    CANCELLED = "cancelled"  # the client left, and the provider knew within a second
    ORPHANED = "orphaned"  # the client left, and the provider went on


def words(letter: str) -> list[str]:
    """Of a whole answer."""
    return [f"{letter}{number}" for number in range(WORDS)]


def ending(text: str, *, failed: bool) -> Ending:
    """text: all content that came. failed: the client was given an error."""
    found = text.split()
    begun = words(found[0][0]) if found else []
    if found != begun[: len(found)] and all(_WORD.fullmatch(word) for word in found):
        return Ending.SPLICED
    if failed:
        return Ending.ERROR
    return Ending.WHOLE if found and found == begun else Ending.FALSE_END


LEAVE_AFTER: Final = 3  # pieces of content
# As long as a provider may take to notice that nobody listens.
NOTICE_S: Final = 1.0

# Whom the providers saw leaving, by number.
Left = Callable[[], Awaitable[set[str]]]


class RequestResult(NamedTuple):
    """One request. begun: seconds since its row began.

    status, said: of the error that the client was given; 0 when it came without a status.
    """

    number: str
    stream: bool
    begun: float
    ending: Ending
    latency_s: float
    said: str = ""
    status: int = 0


class Question(NamedTuple):
    """number: of the request, unique; its provider counts by it. begun: as in RequestResult."""

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
    """Raises nothing: whatever went wrong is in the ending."""
    started, heard, failure = time.perf_counter(), "", None
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


async def leave(client: openai.AsyncOpenAI, question: Question, left: Left) -> RequestResult:
    """Hang up in mid-stream; whether the provider knows of it in time."""
    started, heard, failure = time.perf_counter(), "", None
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
    question: Question, how: Ending, started: float, failure: Exception | None
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
