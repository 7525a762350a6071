"""Who is refused, for how long, and what others get: a real router before a scripted provider.

Each row: a refusal, of one caller's long prompts or of all callers, with one target or a chain,
with one key or two, at each endpoint.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Final

import pytest

from router.upstream.transport import UpstreamRequest
from tests.support.control.manual_clock import ManualClock
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import completion, error
from tests.support.router.asgi_router import AUTH, CHAT, Place, code
from tests.support.router.live_router import FALLBACK, INCUMBENT

pytestmark = pytest.mark.req("A5", "B3", "B4")
TOLD_S: Final = 578
BALANCE: Final = "Insufficient account balance"
TOO_DEAR: Final = (
    "This request requires more credits, or fewer max_tokens. You requested up to 32000 "
    "tokens, but can only afford 27342."
)


def limited(**headers: str) -> ScriptedTurn:
    return replace(
        error(429), headers={name.replace("_", "-"): v for name, v in headers.items()}
    )


def in_time() -> str:
    return format_datetime(ManualClock().now() + timedelta(seconds=TOLD_S), usegmt=True)


REFUSALS: Final[dict[str, Callable[[], ScriptedTurn]]] = {
    "429 with seconds": lambda: limited(retry_after=str(TOLD_S)),
    "429 with a date": lambda: limited(retry_after=in_time()),
    "429 with ms": lambda: limited(retry_after_ms=str(TOLD_S * 1000)),
    "429 without a header": limited,
    "402": lambda: error(402, TOO_DEAR),
    "403": lambda: error(403, "You may not do this", "forbidden"),
    "400": lambda: error(400, "`temperature` and `top_p` cannot both be specified"),
}
BODIES: Final[dict[str, Callable[[str], dict[str, object]]]] = {
    CHAT: lambda text: {"messages": [{"role": "user", "content": text}]},
    "/v1/messages": lambda text: {
        "max_tokens": 16,
        "messages": [{"role": "user", "content": text}],
    },
    "/v1/responses": lambda text: {"input": text},
}
# What the refused caller gets from a lone target.
ALONE: Final = {"402": 402, "403": 502, "400": 400}


class Row(Place):
    """A route whose incumbent refuses the requests for which `refuses` holds."""

    def __init__(
        self,
        folder: Path,
        refusal: ScriptedTurn,
        *,
        chain: bool,
        keys: int,
        everybody: bool = False,
    ) -> None:
        more_keys = ("UP_KEY_2",) if keys > 1 else ()
        super().__init__(folder, {}, fallback=chain, more_keys=more_keys)
        self._refusal = refusal
        self.everybody = everybody

    def _script_turn(self, request: UpstreamRequest) -> ScriptedTurn:
        model = json.loads(request.body)["model"]
        self.asked[model] += 1
        refused = self.everybody or b"LONG" in request.body
        return self._refusal if refused and model == INCUMBENT else completion(model)

    async def say(
        self, text: str, times: int = 1, path: str = CHAT, *, stream: bool = False
    ) -> Counter[tuple[int, str]]:
        """Counts status and target of some callers' answers."""
        found = Counter[tuple[int, str]]()
        for _ in range(times):
            self.callers += 1
            body = {"model": "support", "stream": stream, **BODIES[path](text)}
            sticky = (b"x-swapproof-sticky", b"%d" % self.callers)
            status, self.headers, self.body = await self.call(
                path, json.dumps(body).encode(), headers=(AUTH, sticky)
            )
            target = self.headers.get(b"x-swapproof-target", b"").decode().removeprefix("up/")
            found[status, target if status == 200 else ""] += 1
        return found


@pytest.mark.parametrize("keys", [1, 2])
@pytest.mark.parametrize("chain", [False, True], ids=["alone", "chain"])
@pytest.mark.parametrize("name", REFUSALS)
async def test_one_callers_refusal_leaves_the_target_to_the_others(
    tmp_path: Path, name: str, *, chain: bool, keys: int
) -> None:
    row = Row(tmp_path, REFUSALS[name](), chain=chain, keys=keys)
    assert await row.say("hi", 3) == {(200, INCUMBENT): 3}

    refused = await row.say(f"LONG {'x' * 2_000}")

    if chain:
        assert refused == {(200, FALLBACK): 1}
    else:
        assert refused == {(ALONE.get(name, 429), ""): 1}
        told = row.headers.get(b"retry-after")
        has_pause = name.startswith("429 with ")
        assert told == (str(TOLD_S).encode() if has_pause else None)
        retried = row.headers[b"x-should-retry"]
        assert retried == (b"true" if name.startswith("429") else b"false")
    if chain and name.startswith("429 with "):
        # Until the turn comes, the healthy fallback answers.
        assert await row.say("hi") == {(200, FALLBACK): 1}
    row.clock.advance(1)
    assert await row.say("hi", 10) == {(200, INCUMBENT): 10}
    assert await row.state() == 0
    row.recorder.flush()
    assert row.kept.alerts == []


@pytest.mark.parametrize("keys", [1, 2])
@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_of_all_callers_sends_them_to_the_fallback_and_costs_few_calls(
    tmp_path: Path, name: str, *, keys: int
) -> None:
    refusal = error(402, BALANCE) if name == "402" else REFUSALS[name]()
    row = Row(tmp_path, refusal, chain=True, keys=keys, everybody=True)

    for _ in range(20):
        assert await row.say("hi", 5) == {(200, FALLBACK): 5}
        row.clock.advance(1)

    # Only a failure that names no time, or that is about the request, is asked each time.
    per_caller = name in ("429 without a header", "400")
    assert (row.asked[INCUMBENT] >= 100) is per_caller
    assert per_caller or row.asked[INCUMBENT] <= 6 * keys
    assert await row.state() == (2 if name in ("402", "403") else 0)


@pytest.mark.parametrize("keys", [1, 2])
async def test_a_lone_target_that_limits_all_callers_gives_each_its_own_status(
    tmp_path: Path, *, keys: int
) -> None:
    row = Row(
        tmp_path, limited(retry_after=str(TOLD_S)), chain=False, keys=keys, everybody=True
    )
    assert await row.say("hi") == {(429, ""): 1}

    for second in range(1, 21):
        row.clock.advance(1)
        assert await row.say("hi", 3) == {(429, ""): 3}
        assert int(row.headers[b"retry-after"]) in range(TOLD_S - second, TOLD_S + 1)
    assert code(row.body) == "rate_limit_exceeded"
    # At 0, 1, 3, 7 and 15 s.
    assert row.asked[INCUMBENT] <= 5 * keys

    row.everybody = False
    row.clock.advance(12)
    assert await row.say("hi", 10) == {(200, INCUMBENT): 10}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("path", BODIES)
async def test_each_endpoint_gives_the_refused_caller_the_providers_status_and_others_answers(
    tmp_path: Path, path: str, *, stream: bool
) -> None:
    row = Row(tmp_path, limited(retry_after=str(TOLD_S)), chain=False, keys=1)
    long = f"LONG {'x' * 2_000}"

    assert await row.say(long, path=path, stream=stream) == {(429, ""): 1}

    assert row.headers[b"retry-after"] == str(TOLD_S).encode()
    assert row.headers[b"x-should-retry"] == b"true"
    row.clock.advance(1)
    assert await row.say("hi", 9) == {(200, INCUMBENT): 9}


async def test_a_limit_of_which_nothing_remains_is_kept_and_asked_no_more(
    tmp_path: Path,
) -> None:
    used_up = limited(retry_after=str(TOLD_S), x_ratelimit_remaining_requests="0")
    row = Row(tmp_path, used_up, chain=False, keys=1)
    assert await row.say("LONG") == {(429, ""): 1}

    row.clock.advance(TOLD_S - 1)
    assert await row.say("hi", 5) == {(429, ""): 5}
    assert row.headers[b"retry-after"] == b"1"
    row.clock.advance(1)
    assert await row.say("hi", 5) == {(200, INCUMBENT): 5}
