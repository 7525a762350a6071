"""One contract for the real transport and its shipped twin."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from harness.domain.errors import ConfigError
from harness.domain.providers.credentials import ProviderKey
from harness.domain.reliability.failures import FailureClass
from router.upstream.failure import UpstreamFailed
from router.upstream.pool import UpstreamPool
from router.upstream.transport import Transport, UpstreamRequest
from router.upstream.transports import Transports
from tests.support.providers.scripted_transport import (
    ScriptedEvent,
    ScriptedTransport,
    ScriptedTurn,
)
from tests.support.providers.scripted_upstream import (
    Upstream,
    completion,
    gzipped,
    running_upstream,
)
from tests.support.router.live_router import QUICK, UPSTREAM_KEY, provider

UP = ProviderKey("UP_KEY", UPSTREAM_KEY)
REFUSED = provider("http://127.0.0.1:1/v1")
Make = Callable[[ScriptedTurn], tuple[Transport, UpstreamRequest]]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running_upstream() as upstream:
        yield upstream


@pytest.fixture(params=["pool", "scripted"])
def make(request: pytest.FixtureRequest, upstream: Upstream) -> Make:
    """A transport before a provider that plays this turn, and a request for it."""

    def made(turn: ScriptedTurn) -> tuple[Transport, UpstreamRequest]:
        upstream.turns["m"] = turn
        where = REFUSED if turn.refuse else provider(upstream.url)
        ask = UpstreamRequest(where, b'{"model":"m"}', stream=False, key=UP)
        if request.param == "scripted":
            return ScriptedTransport(lambda _: turn), ask
        return UpstreamPool(QUICK), ask

    return made


@asynccontextmanager
async def answered(make: Make, turn: ScriptedTurn) -> Any:
    transport, ask = make(turn)
    try:
        reply = await transport.send(ask)
        try:
            yield reply
        finally:
            await reply.aclose()
    finally:
        await transport.aclose()


async def test_status_headers_and_body_arrive(make: Make) -> None:
    turn = ScriptedTurn(
        418, {"content-type": "text/tea", "x-a": "b"}, (b"short", 0.01, b" and stout")
    )

    async with answered(make, turn) as reply:
        assert reply.status == 418
        assert {(b"content-type", b"text/tea"), (b"x-a", b"b")} <= set(reply.headers)
        assert b"".join([chunk async for chunk in reply.chunks()]) == b"short and stout"
    async with answered(make, turn) as reply:
        assert await reply.body() == b"short and stout"


async def test_nobody_listening_is_a_connect_failure(make: Make) -> None:
    with pytest.raises(UpstreamFailed) as failed:
        async with answered(make, ScriptedTurn(refuse=True)):
            pass
    assert failed.value.failure is FailureClass.CONNECT


async def test_a_reset_before_the_first_byte_is_a_connect_failure(make: Make) -> None:
    with pytest.raises(UpstreamFailed) as failed:
        async with answered(make, ScriptedTurn(steps=(ScriptedEvent.RESET,))):
            pass
    assert failed.value.failure is FailureClass.CONNECT


async def test_a_reset_in_the_body_is_told(make: Make) -> None:
    async with answered(make, ScriptedTurn(steps=(b"half", ScriptedEvent.RESET))) as reply:
        chunks = reply.chunks()
        assert await anext(chunks) == b"half"
        with pytest.raises(UpstreamFailed) as failed:
            await anext(chunks)
    assert failed.value.failure is FailureClass.CONNECT


@pytest.mark.parametrize(
    "turn", [ScriptedTurn(hang=True), ScriptedTurn(steps=(b"x", ScriptedEvent.HANG))]
)
async def test_waiting_can_be_cancelled_at_any_point(make: Make, turn: ScriptedTurn) -> None:
    async def wait() -> None:
        async with asyncio.timeout(0.2), answered(make, turn) as reply:
            async for _ in reply.chunks():
                pass

    with pytest.raises(TimeoutError):
        await wait()


async def test_a_fresh_connection_is_no_idle_one(upstream: Upstream) -> None:
    upstream.turns["m"] = completion()
    transport = UpstreamPool(QUICK)
    connections = []
    for fresh in (False, False, True, True):
        ask = UpstreamRequest(provider(upstream.url), b'{"model":"m"}', stream=False)
        reply = await transport.send(replace(ask, fresh=fresh))
        async for _ in reply.chunks():
            pass
        await reply.aclose()
        connections.append(upstream.asked[-1].connection)
    await transport.aclose()

    first, second, third, fourth = connections
    assert first == second
    assert len({second, third, fourth}) == 3


async def test_each_path_of_a_provider_is_its_own(upstream: Upstream) -> None:
    upstream.turns["m"] = completion()
    transport = UpstreamPool(QUICK)
    ask = UpstreamRequest(provider(upstream.url), b'{"model":"m"}', stream=False)
    paths = []
    for call in (ask, replace(ask, path="/embeddings"), ask):
        reply = await transport.send(call)
        await reply.aclose()
        paths.append(upstream.asked[-1].path)
    await transport.aclose()

    assert paths == ["/v1/chat/completions", "/v1/embeddings", "/v1/chat/completions"]


async def test_headers_of_one_request_go_with_it_alone(upstream: Upstream) -> None:
    upstream.turns["m"] = completion()
    transport = UpstreamPool(QUICK)
    ours = provider(upstream.url, extra_headers={"X-Fixed": "ours"})
    ask = UpstreamRequest(ours, b'{"model":"m"}', stream=False)
    theirs = ((b"x-version", b"7"), (b"x-fixed", b"theirs"))
    for call in (replace(ask, headers=theirs), ask):
        await (await transport.send(call)).aclose()
    await transport.aclose()

    one, two = (request.headers for request in upstream.asked[-2:])
    assert (one["x-version"], one["x-fixed"]) == ("7", "ours")
    assert "x-version" not in two
    assert two["x-fixed"] == "ours"


async def test_a_key_is_shown_as_the_providers_kind_wants_it(upstream: Upstream) -> None:
    upstream.turns["m"] = completion()
    transport = UpstreamPool(QUICK)
    base = upstream.url.removesuffix("/v1")
    for where in (base, upstream.url, f"{base}/"):
        asked = provider(where, kind="anthropic")
        ask = UpstreamRequest(asked, b'{"model":"m"}', stream=False, path="/messages", key=UP)
        await (await transport.send(ask)).aclose()
    await transport.aclose()

    for request in upstream.asked[-3:]:
        assert request.path == "/v1/messages"
        assert request.headers["x-api-key"] == UPSTREAM_KEY
        assert "authorization" not in request.headers


async def test_a_redirect_is_an_answer_and_not_followed(make: Make) -> None:
    turn = ScriptedTurn(307, {"location": "http://127.0.0.1:1/elsewhere"})

    async with answered(make, turn) as reply:
        assert reply.status == 307


async def test_the_twin_knows_what_was_asked_and_what_is_open() -> None:
    twin = ScriptedTransport(lambda _: ScriptedTurn(steps=(b"x",)))

    reply = await twin.send(UpstreamRequest(REFUSED, b"{}", stream=True))

    assert (len(twin.seen), twin.open_replies) == (1, 1)
    await reply.aclose()
    await reply.aclose()
    assert twin.open_replies == 0


async def real(
    upstream: Upstream,
    turn: ScriptedTurn,
    body: bytes = b'{"model":"m"}',
) -> bytes:
    upstream.turns["m"] = turn
    transport = UpstreamPool(replace(QUICK, max_response_bytes=1_000_000))
    try:
        reply = await transport.send(
            UpstreamRequest(provider(upstream.url), body, stream=False)
        )
        try:
            return b"".join([chunk async for chunk in reply.chunks()])
        finally:
            await reply.aclose()
    finally:
        await transport.aclose()


async def test_gzip_is_read_and_a_bomb_is_cut(upstream: Upstream) -> None:
    plain = completion("zipped")
    assert (await real(upstream, gzipped(plain)),) == plain.steps

    bomb = gzipped(ScriptedTurn(steps=(b"\0" * 50_000_000,)))
    with pytest.raises(UpstreamFailed, match="larger than"):
        await real(upstream, bomb)


@pytest.mark.parametrize("encoding", ["gzip", "br"])
async def test_what_is_not_encoded_as_it_says_is_malformed(
    upstream: Upstream, encoding: str
) -> None:
    with pytest.raises(UpstreamFailed) as failed:
        await real(
            upstream,
            ScriptedTurn(headers={"content-encoding": encoding}, steps=(b"plain",)),
        )
    assert failed.value.failure is FailureClass.MALFORMED


async def test_an_endless_header_is_cut(upstream: Upstream) -> None:
    with pytest.raises(UpstreamFailed) as failed:
        await real(upstream, ScriptedTurn(headers={"x-long": "x" * 1_000_000}))
    assert failed.value.failure in (FailureClass.MALFORMED, FailureClass.CONNECT)


async def test_a_body_of_megabytes_is_sent_whole(upstream: Upstream) -> None:
    body = b'{"model":"m","x":"' + b"x" * 3_000_000 + b'"}'

    await real(upstream, completion(), body)

    assert upstream.asked[-1].body == body


async def test_a_provider_changed_at_run_time_is_used_as_it_is_now(upstream: Upstream) -> None:
    upstream.turns["m"] = completion()
    transports = Transports(QUICK)
    first = provider(upstream.url)
    for call, secret in ((first, "one"), (first, "two"), (replace(first), "three")):
        key = ProviderKey("UP_KEY", secret)
        ask = UpstreamRequest(call, b'{"model":"m"}', stream=False, key=key)
        reply = await transports(call).send(ask)
        await reply.aclose()
    await transports.aclose()

    sent = [request.headers["authorization"] for request in upstream.asked[-3:]]
    assert sent == ["Bearer one", "Bearer two", "Bearer three"]
    with pytest.raises(ConfigError, match="kind 'unheard-of'"):
        transports(replace(first, kind="unheard-of"))
