import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from evals.sim import server as sim
from harness.app.installation import open_installation
from harness.frame.failures import FailureClass
from harness.proposals.report.content import KEYRING_VARIABLE, database_url
from harness.providers.credential import ProviderKey
from harness.providers.target import Provider
from harness.routing.records.runs import EvalRuns
from harness.routing.settings import RouterSettings
from router.frame.body import CHAT_PATH
from router.frame.failure import UpstreamFailed
from router.protocols.chat.stream import ChatStream
from router.upstream.pool import UpstreamPool
from router.upstream.translate.transport import TranslatingTransport
from router.upstream.transport import UpstreamReply, UpstreamRequest
from tests.support.providers import simulator_thread
from tests.support.providers.raw_server import (
    Play,
    ServerConnection,
    raw_server,
)
from tests.support.router.router_process import eventually, routed
from tests.support.site.processes import site
from tests.wire import anthropic, gemini, vertex
from tests.wire.server import KEY, Json, Reading, Reply, Usage, serving

pytestmark = pytest.mark.slow

WIRES: Final[dict[str, Any]] = {
    "anthropic": anthropic,
    "gemini": gemini,
    "vertex": vertex,
}
SECRET: Final = ProviderKey("K", KEY)
SETTINGS: Final = RouterSettings(max_response_bytes=1024 * 1024)
LIVE: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


@pytest.fixture(scope="module")
def loaded() -> dict[str, TranslatingTransport]:
    """Loading is the slow part; each test puts its own wire below."""
    found = {kind: TranslatingTransport(kind, UpstreamPool(SETTINGS)) for kind in WIRES}
    for transport in found.values():
        transport.prepare()
    return found


@asynccontextmanager
async def call_provider(
    loaded: TranslatingTransport,
    kind: str,
    play: Play,
    *,
    stream: bool = True,
    **more: Any,
) -> AsyncIterator[tuple[UpstreamReply, int]]:
    """The reply, and how many connections the provider saw."""
    pool = UpstreamPool(SETTINGS)
    async with raw_server(play) as server:
        base = f"http://127.0.0.1:{server.port}"
        provider = Provider("p", kind, base, "K")
        body = {
            "model": WIRES[kind].MODEL,
            "messages": [{"role": "user", "content": "Hi"}],
        }
        request = UpstreamRequest(
            provider,
            json.dumps({**body, **more}).encode(),
            stream,
            path=CHAT_PATH,
            key=SECRET,
        )
        transport = TranslatingTransport(kind, pool)
        transport._translation = loaded._translation
        reply = await transport.send(request)
        try:
            yield reply, len(server.lines)
        finally:
            await reply.aclose()
            await pool.aclose()


def plays(*pieces: bytes) -> Play:
    async def play(line: ServerConnection) -> None:
        await line.request()
        await line.send(*pieces)

    return play


def whole(
    body: object,
    status: str = "200 OK",
    kind: str = "application/json",
) -> bytes:
    raw = json.dumps(body).encode() if not isinstance(body, bytes) else body
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(raw)}\r\n\r\n"
    return head.encode() + raw


async def filtered(reply: UpstreamReply) -> ChatStream:
    stream = ChatStream("null", show_usage=True)
    async for piece in reply.chunks():
        stream.feed(piece)
        if stream.failure:
            return stream
    stream.end()
    return stream


@pytest.mark.parametrize("kind", WIRES)
async def test_a_stream_that_breaks_off_has_no_good_end(
    loaded: dict[str, TranslatingTransport], kind: str
) -> None:
    events: Sequence[bytes] = WIRES[kind].events(Reply("Some words that stop"))
    async with call_provider(loaded[kind], kind, plays(LIVE, *events[:4])) as (reply, _):
        heard = await filtered(reply)

    assert heard.committed
    assert heard.failure == "the stream ended without a finish_reason"


@pytest.mark.parametrize(
    ("kind", "event", "failure"),
    [
        (
            "anthropic",
            {
                "type": "error",
                "error": {
                    "type": "overloaded_error",
                    "message": "Overloaded",
                },
            },
            FailureClass.OVERLOADED,
        ),
        (
            "gemini",
            {
                "error": {
                    "code": 429,
                    "message": "quota",
                    "status": "RESOURCE_EXHAUSTED",
                }
            },
            FailureClass.RATE_LIMITED,
        ),
        (
            "gemini",
            {
                "error": {
                    "code": 503,
                    "message": "overloaded",
                    "status": "UNAVAILABLE",
                }
            },
            FailureClass.OVERLOADED,
        ),
    ],
)
async def test_an_error_within_a_stream_keeps_its_class(
    loaded: dict[str, TranslatingTransport],
    kind: str,
    event: Json,
    failure: FailureClass,
) -> None:
    first = WIRES[kind].events(Reply("Some words"))[0]
    wrong = f"data: {json.dumps(event)}\n\n".encode()
    async with call_provider(loaded[kind], kind, plays(LIVE, first, wrong)) as (reply, _):
        heard = await filtered(reply)

    assert heard.failure_class is failure


@pytest.mark.parametrize("kind", WIRES)
async def test_whoever_leaves_a_stream_closes_it_at_the_provider(
    loaded: dict[str, TranslatingTransport], kind: str
) -> None:
    left = asyncio.Event()

    async def play(line: ServerConnection) -> None:
        await line.request()
        await line.send(LIVE, *WIRES[kind].events(Reply("Some words"))[:4])
        assert await line.reader.read() == b""
        left.set()

    async with call_provider(loaded[kind], kind, play) as (reply, _):
        assert await anext(reply.chunks())
        await reply.aclose()
        await asyncio.wait_for(left.wait(), 60)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", WIRES)
@pytest.mark.parametrize("body", [b"<html>", b"[1]", b'{"hello": 1}', b'{"content": "x"}'])
async def test_what_is_no_answer_is_malformed(
    loaded: dict[str, TranslatingTransport],
    kind: str,
    body: bytes,
    *,
    stream: bool,
) -> None:
    sent = LIVE + b"data: " + body + b"\n\n" if stream else whole(body)
    async with call_provider(loaded[kind], kind, plays(sent), stream=stream) as (reply, _):
        if stream:
            assert await _failure(reply) is FailureClass.MALFORMED
            return
        with pytest.raises(UpstreamFailed) as caught:
            await reply.body()
        assert caught.value.failure is FailureClass.MALFORMED
        assert "hello" not in caught.value.detail


@pytest.mark.req("A5", "F2")
@pytest.mark.parametrize("kind", WIRES)
async def test_a_fault_of_ours_in_a_translation_is_not_the_clients_or_the_providers(
    loaded: dict[str, TranslatingTransport],
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def breaks(*_: object, **__: object) -> Any:
        raise KeyError("what the client said")

    module = type(loaded[kind]._translation).__module__
    play = plays(whole(WIRES[kind].whole(Reply("Hi"))))
    with monkeypatch.context() as patched:
        patched.setattr(f"{module}.completion", breaks)
        async with call_provider(loaded[kind], kind, play, stream=False) as (reply, _):
            with pytest.raises(UpstreamFailed) as answering:
                await reply.body()
    monkeypatch.setattr(loaded[kind]._translation, "ask", breaks)
    with pytest.raises(UpstreamFailed) as asking:
        async with call_provider(loaded[kind], kind, play, stream=False):
            pass

    for caught in (answering, asking):
        assert caught.value.failure is FailureClass.INTERNAL
        assert "client said" not in str(caught.value)


async def _failure(reply: UpstreamReply) -> FailureClass | None:
    try:
        return (await filtered(reply)).failure_class
    except UpstreamFailed as error:
        return error.failure


@pytest.mark.parametrize("kind", WIRES)
async def test_a_flood_is_cut_off(loaded: dict[str, TranslatingTransport], kind: str) -> None:
    flood = [b"data: " + b"x" * 65536] * 40
    async with call_provider(loaded[kind], kind, plays(LIVE, *flood)) as (reply, _):
        with pytest.raises(UpstreamFailed, match="larger than"):
            await filtered(reply)


@pytest.mark.parametrize("kind", WIRES)
async def test_a_page_of_a_proxy_keeps_its_status(
    loaded: dict[str, TranslatingTransport], kind: str
) -> None:
    page = whole(b"<html>busy</html>", "413 Too Large", "text/html")
    async with call_provider(loaded[kind], kind, plays(page)) as (reply, _):
        assert (reply.status, await reply.body()) == (413, b"{}")


@pytest.mark.parametrize("kind", WIRES)
async def test_an_image_elsewhere_is_not_fetched_and_the_provider_not_asked(
    loaded: dict[str, TranslatingTransport], kind: str
) -> None:
    async with raw_server(plays(whole({}))) as other:
        url = f"http://127.0.0.1:{other.port}/a.png"
        image = {"type": "image_url", "image_url": {"url": url}}
        messages = [{"role": "user", "content": [image]}]
        talk = call_provider(loaded[kind], kind, plays(whole({})), messages=messages)
        async with talk as (reply, connections):
            error = json.loads(await reply.body())["error"]

        assert (reply.status, error["code"]) == (
            422,
            "not_supported_by_target",
        )
        assert connections == len(other.lines) == 0


USAGE: Final = Usage(input=100, output=20, cached=40)


def examinee(model: str, *, hiccups: int = 0) -> Callable[[Reading], Reply]:
    """Answers the shipped suites as the simulator's model would.

    Args:
        hiccups: 529s before that.
    """
    simulator = sim.simulator()
    sitting = simulator.models[model]
    left = [anthropic.OVERLOADED] * hiccups

    def answer(read: Reading) -> Reply:
        if left:
            raise left.pop()
        item = simulator.bank.find(read.turns[-1].text)
        assert item is not None
        return Reply(str(sitting.sit(item).value), usage=USAGE)

    return answer


def provider(
    kind: str,
    api_base: str,
    model: str,
) -> Json:
    price = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 10.0}
    return {
        "kind": kind,
        "api_base": api_base,
        "api_key_env": "WIRE_KEY",
        "prices": {model: price},
    }


@pytest.mark.req("A1", "A7", "B7")
@pytest.mark.verify
def test_a_candidate_and_an_incumbent_of_other_protocols_get_their_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WIRE_KEY", KEY)
    old = gemini.strict()
    new = anthropic.strict()
    old.answers = examinee("sim-base")
    new.answers = examinee("sim-better", hiccups=2)
    with serving(old), serving(new):
        settings: dict[str, object] = {
            "providers": {
                "google": provider("gemini", old.api_base, gemini.MODEL),
                "claude": provider("anthropic", new.api_base, anthropic.MODEL),
            },
            "policies": {"quick": {"gate": {"n_max": 120, "infra_patience_s": 0.1}}},
        }
        with site(tmp_path, settings) as place:
            arms = (
                "--incumbent",
                f"google/{gemini.MODEL}",
                "--candidate",
                f"claude/{anthropic.MODEL}",
                "--patch-param",
                "temperature=0.25",
            )
            done = place.run(
                "gate",
                "run",
                "--suite",
                "tickets",
                "--policy",
                "quick",
                "--json",
                *arms,
                "--keep",
                str(tmp_path / "kept"),
            )
    assert json.loads(done.stdout)["verdict"]["verdict"] == "passed"
    assert [*old.refused, *new.refused] == [str(anthropic.OVERLOADED)] * 2
    # As it will serve: with the request patch, in the provider's words.
    assert {reading.temperature for reading in new.readings} == {0.25}
    monkeypatch.setenv("SWAPPROOF__DATABASE_URL", database_url(tmp_path / "kept"))
    monkeypatch.setenv(KEYRING_VARIABLE, str(tmp_path / "kept/signing.pub"))
    installation = open_installation(place.config, create_secret=True)
    try:
        with installation.store.read() as tx:
            runs = EvalRuns(tx).list()
            samples = [sample for run in runs for sample in EvalRuns(tx).samples(run.id)]
    finally:
        installation.close()
    assert len(runs) == 2
    assert {sample.served_model for sample in samples} == {
        gemini.MODEL,
        anthropic.MODEL,
    }
    assert not [sample for sample in samples if sample.error]
    used = {(e.input_tokens, e.cached_tokens, e.output_tokens) for e in samples}
    assert used == {(USAGE.input, USAGE.cached, USAGE.output)}
    assert [sample.cost_usd for sample in samples] == pytest.approx([300e-6] * len(samples))


@pytest.mark.req("A1", "F2")
def test_a_proposal_says_which_shares_of_the_requests_its_candidate_cannot_take(
    tmp_path: Path,
) -> None:
    searches: Json = {"type": "web_search_preview"}
    function: Json = {
        "type": "function",
        "name": "look",
        "parameters": {"type": "object"},
    }
    asked: list[Json] = [
        *[{}] * 5,
        {"tools": [function, searches]},
        {"tools": [searches]},
        {"previous_response_id": "resp_1"},
        {"previous_response_id": "resp_2"},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
    ]
    with simulator_thread.serve_in_thread(sim.simulator(time_scale=0.0)) as answering:
        providers = {
            "sim": {"kind": "sim", "api_base": f"{answering}/v1"},
            "chats": {"kind": "groq", "api_base": f"{answering}/v1"},
        }
        with routed(tmp_path, answering, providers=providers) as world:
            world.start("--workers", "2")
            headers = {"authorization": f"Bearer {world.key}"}
            for more in asked:
                # Whatever the provider makes of it, it was asked for.
                body = {
                    "model": "chat",
                    "input": "Colour number 3?",
                    **more,
                }
                httpx.post(
                    f"{world.url}/v1/responses",
                    json=body,
                    headers=headers,
                    timeout=60,
                )
            eventually(lambda: world.recorded() == len(asked))
            assert world.place.terminate("router") == 0

            propose = ("proposal", "create", "chat")
            said = world.place.run(*propose, "chats/sim-better", "--dry-run").stderr
            native = world.place.run(*propose, "sim/sim-better", "--dry-run").stderr

    for share, what in (
        ("20 %", "previous_response_id"),
        ("10 %", "the tool web_search"),
        ("10 %", "item_reference"),
    ):
        words = f"{share} of chat's requests of the last 7 days used {what}: this candidate"
        assert f"{words} cannot take them" in " ".join(said.split())
    assert "cannot take them" not in native
