import asyncio
import gzip
import json
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest

from evals.runner.chat_completions import ChatReply
from evals.runner.provider_client import (
    RETRIES,
    EvalProviderClient,
    ProviderFailed,
)
from evals.runner.rate_gate import RateGates
from harness.frame.failures import FailureClass
from harness.frame.people.limits import EvalLimits
from harness.frame.ports import RateBook
from harness.routing.settings import RouterSettings
from router.access.rate_limits import LocalRates
from router.upstream.transports import ProviderClient
from tests.support.providers.scripted_chat import (
    KEY,
    Response,
    Script,
    Served,
    serving,
)

BODY = {
    "model": "m",
    "messages": [
        {
            "role": "user",
            "content": "The secret recipe of Aunt Emma is butter.",
        }
    ],
}


def ask(
    served: Served,
    away: dict[str, tuple[str, float]] | None = None,
    **more: object,
) -> tuple[ChatReply, float]:
    async def once() -> tuple[ChatReply, float]:
        client = open_client(served, away)
        try:
            return await client.ask({**BODY, **more})
        finally:
            await client.close()

    return asyncio.run(once())


def open_client(
    served: Served, away: dict[str, tuple[str, float]] | None
) -> EvalProviderClient:
    return EvalProviderClient(
        served.provider(
            extra_headers={
                "x-extra": "yes",
                "x-project": "project-of-the-test",
            }
        ),
        KEY,
        calls=ProviderClient,
        connections=2,
        first_pause_s=0.001,
        away=away,
    )


def in_turn(*responses: Response) -> Script:
    """The last one is repeated."""
    left = list(responses)
    return lambda _body: left.pop(0) if len(left) > 1 else left[0]


def error(
    status: int,
    message: str = "no",
    **headers: str,
) -> Response:
    raw = json.dumps({"error": {"message": message}}).encode()
    return Response(
        status=status,
        raw=raw,
        headers={k.replace("_", "-"): v for k, v in headers.items()},
    )


def test_an_answer_comes_with_its_time_and_the_request_with_key_and_headers() -> None:
    with serving(in_turn(Response("Hello"))) as served:
        answered, seconds = ask(served)

    assert answered.text == "Hello"
    assert seconds > 0
    [request] = served.requests
    assert request["path"] == "/v1/chat/completions"
    assert (request["authorization"], request["extra"]) == (
        f"Bearer {KEY}",
        "yes",
    )


@pytest.mark.req("A8", "B7")
def test_a_limit_goes_under_the_name_that_the_provider_knows() -> None:
    with serving(in_turn(Response("Hello"))) as served:
        ask(served, max_tokens=512)

    [request] = served.requests
    assert (request.get("max_tokens"), request["max_completion_tokens"]) == (None, 512)


@pytest.mark.req("A5")
@pytest.mark.parametrize(
    "failure",
    [
        error(429, retry_after="0"),
        error(500),
        error(503),
        error(529),
        Response(reset=True),
        Response(raw=b"<html>"),
        Response(raw=b'{"error": {"message": "overloaded"}}'),
        Response(
            raw=b'{"choices": [{"mess',
            headers={"content-length": "500"},
            reset=True,
        ),
    ],
)
def test_a_passing_failure_is_retried(failure: Response) -> None:
    with serving(in_turn(failure, failure, failure, Response("at last"))) as served:
        assert ask(served)[0].text == "at last"
    assert len(served.requests) == RETRIES + 1


FAR = format_datetime(datetime(2037, 1, 1, tzinfo=UTC), usegmt=True)
BLANKS = b" " * (RouterSettings().max_response_bytes + 2**17)
TOLD = {
    "a lasting one": (
        error(503, "try later"),
        r"HTTP 503: try later \(4 attempts\)",
        RETRIES + 1 + 1,  # the last one is a short question
    ),
    **{
        f"{status}, which no retry mends": (
            error(status, "no"),
            f"HTTP {status}: no",
            1,
        )
        for status in (400, 401, 403, 404, 413, 422)
    },
    "a page": (Response(status=404, raw=b"<h1>no</h1>"), "HTTP 404", 1),
    "a pause of hours": (
        error(429, retry_after="7200"),
        r"HTTP 429: no \(it asks for a pause of 2 h\)",
        1,
    ),
    "a pause until a date": (
        error(429, retry_after=FAR),
        r"HTTP 429: no \(it asks for a pause of [1-9]\d{2,} d( \d+ h)?\)",
        1,
    ),
    "an answer without measure": (
        Response(raw=BLANKS),
        r"the call failed: answer larger than \d+ bytes",
        1,
    ),
    "a packed one": (
        Response(raw=gzip.compress(BLANKS), headers={"content-encoding": "gzip"}),
        r"the call failed: answer larger than \d+ bytes",
        1,
    ),
}


@pytest.mark.req("A5")
@pytest.mark.parametrize("failure", TOLD)
def test_a_failure_is_told_after_as_many_attempts_as_may_mend_it(failure: str) -> None:
    response, told, attempts = TOLD[failure]
    with (
        serving(in_turn(response)) as served,
        pytest.raises(ProviderFailed, match=f"^{told}$"),
    ):
        ask(served)
    assert len(served.requests) == attempts


@pytest.mark.parametrize(
    "message",
    [
        "Cannot parse: The secret recipe of Aunt Emma",
        "CANNOT PARSE: THE SECRET RECIPE OF AUNT EMMA",
        f"Incorrect key {KEY}",
        f"Incorrect key {KEY[:10]}****",
        "Unknown x-project: project-of-the-test",
    ],
)
def test_words_of_the_provider_that_repeat_prompt_or_key_are_withheld(message: str) -> None:
    with (
        serving(in_turn(error(400, message))) as served,
        pytest.raises(ProviderFailed) as raised,
    ):
        ask(served)

    assert (
        str(raised.value)
        == "HTTP 400 (its message repeats the request, so Swapproof does not show it)"
    )


def test_a_redirect_is_not_followed() -> None:
    with serving(in_turn(Response("mine now"))) as other:
        moved = Response(
            status=307,
            raw=b"",
            headers={"location": f"{other.url}/elsewhere"},
        )
        with (
            serving(in_turn(moved)) as served,
            pytest.raises(ProviderFailed, match=r"^HTTP 307$"),
        ):
            ask(served)
    assert other.requests == []


def test_nobody_listening_is_a_connection_that_failed() -> None:
    with serving(in_turn(Response("x"))) as served:
        pass

    with pytest.raises(ProviderFailed, match=r"^the call failed: \w+ \(4 attempts\)$"):
        ask(served)


def only_this_item(body: Mapping[str, object]) -> Response:
    return error(500) if body["messages"] == BODY["messages"] else Response("OK")


FILTERED = b'{"error": {"message": "no", "code": "content_filter"}}'
TOO_LONG = b'{"error": {"message": "too long", "code": "context_length_exceeded"}}'
REFUSED_MODEL = b'{"error": {"message": "no such model", "code": "model_not_found"}}'


@pytest.mark.req("F2")
@pytest.mark.parametrize(
    ("script", "away", "refused"),
    [
        (in_turn(Response(reset=True)), True, None),
        (in_turn(error(503)), True, None),
        (in_turn(error(429, retry_after="7200")), True, None),
        (only_this_item, False, None),
        (in_turn(error(401)), False, None),
        (in_turn(error(403)), False, None),
        (in_turn(Response(status=404, raw=REFUSED_MODEL)), False, None),
        (
            in_turn(Response(status=400, raw=FILTERED)),
            False,
            FailureClass.CONTENT_POLICY,
        ),
        (
            in_turn(Response(status=400, raw=TOO_LONG)),
            False,
            FailureClass.CONTEXT_WINDOW,
        ),
    ],
)
def test_a_provider_is_away_where_it_answers_no_short_question_either(
    script: Script,
    *,
    away: bool,
    refused: FailureClass | None,
) -> None:
    named: dict[str, tuple[str, float]] = {}
    begun = time.perf_counter()
    with serving(script) as served, pytest.raises(ProviderFailed) as raised:
        ask(served, named)

    found = {text: (name, at >= begun) for text, (name, at) in named.items()}
    assert found == ({str(raised.value): ("sim", True)} if away else {})
    assert getattr(raised.value, "failure", None) == refused


def test_what_a_provider_answered_before_it_went_away_does_not_hide_that() -> None:
    asked = threading.Event()
    gone = threading.Event()

    def script(body: Mapping[str, object]) -> Response:
        if body["messages"] != BODY["messages"] and not gone.is_set():
            return Response("OK")
        asked.set()
        gone.wait(60)
        return error(503)

    async def both(served: Served) -> None:
        client = open_client(served, named)
        slow = asyncio.create_task(client.ask(BODY))
        await asyncio.to_thread(asked.wait, 60)
        await client.ask({**BODY, "messages": [{"role": "user", "content": "Hello"}]})
        gone.set()
        with pytest.raises(ProviderFailed):
            await slow
        await client.close()

    named: dict[str, tuple[str, float]] = {}
    with serving(script) as served:
        asyncio.run(both(served))
    assert [name for name, _ in named.values()] == ["sim"]


def paced(
    served: Served,
    book: RateBook,
    slots: Path,
) -> tuple[ChatReply, float]:
    """One question from a worker that shares book and slots with others."""

    async def once() -> tuple[ChatReply, float]:
        pace = RateGates({"sim": EvalLimits(max_concurrent=1)}, book, slots).gate_for(
            "sim", "m"
        )
        client = EvalProviderClient(
            served.provider(),
            KEY,
            calls=ProviderClient,
            connections=2,
            first_pause_s=0.001,
            pace=pace,
        )
        try:
            return await client.ask(BODY)
        finally:
            await client.close()

    return asyncio.run(once())


@pytest.mark.req("A5")
def test_a_pause_that_the_provider_asks_for_is_for_every_worker(tmp_path: Path) -> None:
    book = LocalRates()
    began = time.monotonic()
    with serving(in_turn(error(429, retry_after="0.3"), Response("at last"))) as served:
        assert paced(served, book, tmp_path)[0].text == "at last"
    held = book.change("hold:sim", lambda state: state).requests_until
    assert held >= began + 0.3


@pytest.mark.req("A5", "F2")
def test_a_small_local_server_gets_few_calls_at_once(tmp_path: Path) -> None:
    """Its latency grows with the calls under way: all at once would be too many for it."""
    asked = 40
    lock = threading.Lock()
    under_way = list[int]()
    most = list[int]()

    def crowded(_body: Mapping[str, object]) -> Response:
        with lock:
            under_way.append(1)
            most.append(len(under_way))
        time.sleep(0.03 * most[-1])
        with lock:
            under_way.pop()
        return Response("Hello")

    async def ask_all(served: Served) -> None:
        client = EvalProviderClient(
            served.provider(),
            None,
            calls=ProviderClient,
            connections=asked,
            pace=RateGates({}, LocalRates(), tmp_path).gate_for("sim", "m"),
        )
        try:
            await asyncio.gather(*(client.ask(BODY) for _ in range(asked)))
        finally:
            await client.close()

    with serving(crowded) as served:
        asyncio.run(ask_all(served))
    assert len(served.requests) == asked
    assert 2 < max(most) < asked / 2
