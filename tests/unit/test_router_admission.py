import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from harness.frame.alerts.alert import AlertKind
from harness.frame.people.access import key_hash
from harness.frame.people.limits import KeyLimits, KeySpend
from harness.routing.settings import RouterSettings
from harness.routing.table import KeyGrant
from router.access.admission import UNKNOWN_KEY_BUCKETS
from router.access.rate_limits import LocalRates
from router.frame.database import RouterDatabase
from router.observers.feedback import FEEDBACK_PATH
from router.upstream.transport import UpstreamRequest
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    completion,
    error,
    streamed,
)
from tests.support.router.asgi_router import ASK, AUTH, CHAT, Door, code
from tests.support.router.live_router import KEY, QUICK, SECRET, snapshot

LIMITED = "sk-sg-limited"
BEARER = ((b"authorization", f"Bearer {LIMITED}".encode()),)
# A completion costs 7 input and 5 output tokens at 1 and 2 dollars per million: 17e-6 dollars.
COST_USD = 17e-6
LATE = datetime(2026, 3, 31, 23, 0, tzinfo=UTC)
Make = Callable[..., Door]


@pytest.fixture
def door(tmp_path: Path) -> Make:
    def make(
        script: Callable[[UpstreamRequest], ScriptedTurn] = lambda _: completion(),
        settings: RouterSettings = QUICK,
        **limits: Any,
    ) -> Door:
        grants = (
            KeyGrant("k-good", key_hash(KEY, SECRET)),
            KeyGrant(
                "k-limited",
                key_hash(LIMITED, SECRET),
                limits=KeyLimits(**limits),
            ),
        )
        first = replace(snapshot("http://127.0.0.1:1/v1"), keys=grants)
        return Door(tmp_path, script, settings, first=first)

    return make


async def ask(
    door: Door,
    body: bytes = ASK,
    path: str = CHAT,
    headers: Any = BEARER,
) -> tuple[int, dict[bytes, bytes], bytes]:
    return await door.call(path, body, headers=headers)


async def test_requests_over_the_limit_are_told_when_to_come_back(door: Make) -> None:
    router = door(requests_per_min=2)
    status, headers, _ = await ask(router)
    assert status == 200
    assert headers[b"x-ratelimit-limit-requests"] == b"2"
    assert headers[b"x-ratelimit-remaining-requests"] == b"1"
    assert headers[b"x-ratelimit-reset-requests"] == b"30s"

    await ask(router)
    status, headers, body = await ask(router)
    assert (status, code(body)) == (429, "rate_limit_exceeded")
    assert (headers[b"retry-after"], headers[b"retry-after-ms"]) == (
        b"30",
        b"30000",
    )
    assert headers[b"x-ratelimit-remaining-requests"] == b"0"
    assert headers[b"x-ratelimit-reset-requests"] == b"1m0s"
    assert "limit of 2 requests per minute" in json.loads(body)["error"]["message"]
    assert len(router.transport.seen) == 2

    router.clock.advance(30)
    assert (await ask(router))[0] == 200
    assert router.recorder.counters["rate_limited"] == 1


@pytest.mark.parametrize("jump_s", [-3600.0, -1.0, 1.0, 3600.0])
async def test_a_wall_clock_that_is_set_changes_no_rate(jump_s: float, door: Make) -> None:
    router = door(requests_per_min=2)
    assert [(await ask(router))[0] for _ in range(3)] == [200, 200, 429]

    router.clock.jump(jump_s)
    status, headers, _ = await ask(router)
    assert (status, headers[b"retry-after"]) == (429, b"30")

    router.clock.advance(30)
    assert [(await ask(router))[0] for _ in range(2)] == [200, 429]


async def test_routers_of_several_machines_grant_their_share_and_together_the_limit(
    door: Make,
) -> None:
    routers = [
        door(
            settings=replace(QUICK, rate_share=1 / 3),
            requests_per_min=6,
            tokens_per_min=9000,
        )
        for _ in range(3)
    ]
    for router in routers:
        status, headers, _ = await ask(router)
        assert (status, headers[b"x-ratelimit-limit-requests"]) == (
            200,
            b"2",
        )
        assert headers[b"x-ratelimit-limit-tokens"] == b"3000"
        assert (await ask(router))[0] == 200
        status, _, body = await ask(router)
        assert (status, code(body)) == (429, "rate_limit_exceeded")
        assert "one of several that share" in json.loads(body)["error"]["message"]

    # Of a limit below one a minute for each, every machine grants one.
    small = door(settings=replace(QUICK, rate_share=0.1), requests_per_min=2)
    assert [(await ask(small))[0] for _ in range(2)] == [200, 429]


async def test_a_wrong_request_counts_as_one(door: Make) -> None:
    router = door(requests_per_min=2)

    assert (await ask(router, b"{"))[0] == 400
    assert (await ask(router, b'{"model":"nothing","messages":[]}'))[0] == 404
    assert (await ask(router, b"{"))[0] == 429


@pytest.mark.parametrize(
    ("turn", "body", "estimate", "used"),
    [
        (
            completion(),
            ASK.replace(b'"model"', b'"max_tokens":500,"model"'),
            500,
            12,
        ),
        (
            streamed("a", "b"),
            ASK.replace(b'"model"', b'"stream":true,"model"'),
            0,
            9,
        ),
        (error(400), ASK, 0, 0),
    ],
    ids=["whole", "stream", "refused"],
)
async def test_tokens_are_estimated_first_and_counted_afterwards(
    door: Make,
    turn: ScriptedTurn,
    body: bytes,
    estimate: int,
    used: int,
) -> None:
    router = door(lambda _: turn, tokens_per_min=1000)

    _, headers, _ = await ask(router, body)
    left = 1000 - len(body) // 4 - estimate
    assert headers[b"x-ratelimit-remaining-tokens"] == b"%d" % left
    assert headers[b"x-ratelimit-reset-tokens"].endswith(b"s")

    _, headers, _ = await ask(router)
    assert headers[b"x-ratelimit-remaining-tokens"] == b"%d" % (1000 - used - len(ASK) // 4)


async def test_the_providers_own_limits_are_not_taken_for_the_keys(door: Make) -> None:
    def script_turn(_: UpstreamRequest) -> ScriptedTurn:
        own = {
            "x-ratelimit-remaining-requests": "77",
            "content-type": "application/json",
        }
        return ScriptedTurn(200, own, completion().steps)

    router = door(script_turn, requests_per_min=5)

    assert (await ask(router))[1][b"x-ratelimit-remaining-requests"] == b"4"
    assert (await ask(router, headers=(AUTH,)))[1][b"x-ratelimit-remaining-requests"] == b"77"


async def test_a_budget_warns_and_stops_until_it_starts_anew(door: Make) -> None:
    router = door(budget_day_usd=10 * COST_USD)
    router.clock.jump((LATE - router.clock.now()).total_seconds())
    for spent in range(10):
        status, headers, _ = await ask(router)
        assert status == 200
        expected = None if spent < 8 else b"%d%%" % (10 * spent)
        assert headers.get(b"x-swapproof-budget") == expected

    status, headers, body = await ask(router)
    assert (status, code(body)) == (429, "insufficient_quota")
    assert headers[b"x-should-retry"] == b"false"
    assert headers[b"retry-after"] == b"3600"
    assert "the next budget starts on 2026-04-01 (UTC)" in json.loads(body)["error"]["message"]
    assert router.recorder.counters["budget_stopped"] == 1
    assert len(router.transport.seen) == 10

    router.clock.advance(3600)
    assert (await ask(router))[0] == 200


async def test_each_step_of_a_budget_is_told_once(door: Make) -> None:
    router = door(budget_month_usd=10 * COST_USD)
    for _ in range(14):
        await ask(router)
    router.recorder.flush()

    near, at_end = router.kept.alerts
    assert near.kind is at_end.kind is AlertKind.KEY_BUDGET
    assert near.key != at_end.key
    assert near.title == "key k-limited comes near its end: it spent 80 % of a budget"
    assert at_end.title == "key k-limited is stopped: it spent 100 % of a budget"


async def test_what_others_spent_counts_once_it_is_stored_though_another_follower_fails(
    door: Make,
) -> None:
    router = door(budget_day_usd=1.0)
    today = router.clock.now().date()
    router.kept.spends.append(KeySpend("k-limited", today, "another", 1, 1, 1.0, 0))
    assert (await ask(router))[0] == 200

    def fails(_: RouterDatabase) -> None:
        raise ValueError("a row that cannot be read")

    router.holder._followers.insert(0, fails)
    router.holder.tell_followers()

    assert (await ask(router))[0] == 429


async def test_spend_is_recorded_of_every_key_with_its_requests_tokens_and_day(
    door: Make,
) -> None:
    router = door()
    router.clock.jump((LATE - router.clock.now()).total_seconds())
    await ask(router)
    await ask(router, headers=(AUTH,))
    router.clock.advance(7200)
    await ask(router)
    router.recorder.flush()

    day = LATE.date()
    assert router.kept.spends == [
        KeySpend("k-limited", day, "w", 1, 12, pytest.approx(COST_USD), 0),  # type: ignore[arg-type]  # near
        KeySpend("k-good", day, "w", 1, 12, pytest.approx(COST_USD), 0),  # type: ignore[arg-type]
        KeySpend("k-limited", day + timedelta(1), "w", 1, 12, pytest.approx(COST_USD), 0),  # type: ignore[arg-type]
    ]


async def test_an_address_with_wrong_keys_is_slowed_down_and_right_keys_from_it_are_not(
    door: Make,
) -> None:
    router = door()
    wrong = ((b"authorization", b"Bearer sk-sg-guess"),)
    statuses = [(await ask(router, headers=wrong))[0] for _ in range(11)]
    assert statuses == [401] * 10 + [429]

    _, headers, _ = await router.call(
        CHAT,
        ASK,
        headers=wrong,
        peer="198.51.100.8",
    )
    assert headers[b"x-should-retry"] == b"false"
    status, headers, body = await ask(router, headers=())
    assert (status, code(body), headers[b"retry-after"]) == (
        429,
        "rate_limit_exceeded",
        b"1",
    )
    assert (await ask(router))[0] == (await ask(router, headers=(AUTH,)))[0] == 200
    # Another's mistyped key is told what is wrong with it.
    assert (
        await router.call(
            CHAT,
            ASK,
            headers=wrong,
            peer="198.51.100.7",
        )
    )[0] == 401
    router.clock.advance(1)
    assert (await ask(router, headers=wrong))[0] == 401


async def test_behind_a_trusted_proxy_each_client_has_its_own_count(tmp_path: Path) -> None:
    settings = replace(QUICK, trusted_proxies=("10.0.0.0/8",))
    router = Door(tmp_path, settings=settings)

    async def guess(peer: str, forwarded: bytes) -> int:
        headers = (
            (b"authorization", b"Bearer no"),
            (b"x-forwarded-for", forwarded),
        )
        return (
            await router.call(
                CHAT,
                ASK,
                headers=headers,
                peer=peer,
            )
        )[0]

    # What the client claims before its own address is its invention.
    guesses = [await guess("10.1.1.1", b"1.2.3.%d, 203.0.113.9" % n) for n in range(11)]
    assert guesses == [401] * 10 + [429]
    assert await guess("10.1.1.1", b"203.0.113.10") == 401
    # Nobody trusts this one: its header is worth nothing.
    assert {await guess("192.0.2.7", b"203.0.113.%d" % n) for n in range(11)} == {401, 429}


async def test_any_number_of_addresses_takes_a_bounded_number_of_counts(door: Make) -> None:
    router = door()
    headers = ((b"authorization", b"Bearer no"),)
    statuses = {
        (
            await router.call(
                CHAT,
                ASK,
                headers=headers,
                peer=f"10.{n >> 8}.{n & 255}.1",
            )
        )[0]
        for n in range(3000)
    }

    assert statuses <= {401, 429}
    book = router.app._admission._book
    assert isinstance(book, LocalRates)
    assert len(book._states) <= UNKNOWN_KEY_BUCKETS


@pytest.mark.req("F3", "G5")
async def test_feedback_has_an_allowance_of_its_own_of_the_same_size(door: Make) -> None:
    router = door(requests_per_min=2)
    _, headers, _ = await ask(router)
    served = headers[b"x-swapproof-request-id"].decode()
    word = json.dumps({"request_id": served, "thumb": "up"}).encode()

    assert (await ask(router, word, FEEDBACK_PATH))[0] == 202
    assert (await ask(router, b"{}", FEEDBACK_PATH))[0] == 400  # a wrong one is one too
    status, headers, body = await ask(
        router,
        word,
        FEEDBACK_PATH,
    )

    assert (status, code(body)) == (429, "rate_limit_exceeded")
    assert headers[b"retry-after"] == b"30"
    assert (await ask(router))[0] == 200  # words spend no requests, nor requests words
    assert (await ask(router))[0] == 429
    router.clock.advance(30)
    assert (await ask(router, word, FEEDBACK_PATH))[0] == 202


@pytest.mark.req("F3", "G5")
@pytest.mark.parametrize("limits", [{"tokens_per_min": 20_000}, {"budget_day_usd": COST_USD}])
async def test_neither_tokens_nor_a_spent_budget_silence_anybody(
    door: Make, limits: dict[str, float]
) -> None:
    router = door(**limits)
    _, headers, _ = await ask(router)
    await ask(router)
    served = headers[b"x-swapproof-request-id"].decode()
    word = json.dumps({"request_id": served, "thumb": "down"}).encode()

    assert {(await ask(router, word, FEEDBACK_PATH))[0] for _ in range(5)} == {202}
