import asyncio
import dataclasses
import inspect
import re
import subprocess
import sys
import threading
import types
import typing
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import swapproof
from evals.sim import server as sim
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.operations import keys
from harness.routing.control import routes
from harness.routing.records.observations import Observations
from swapproof import (
    AsyncModelClient,
    CompletionRequest,
    InputError,
    KeyRefused,
    Message,
    ModelClient,
    NobodyAnswered,
    RouterUnreachable,
    StreamBroken,
)
from tests.support.providers import simulator_thread
from tests.support.providers.scripted_transport import (
    ScriptedEvent,
    ScriptedTurn,
)
from tests.support.providers.scripted_upstream import (
    ROLE,
    ReceivedRequest,
    Upstream,
    broken_stream,
    completion,
    error,
    event,
)
from tests.support.router.router_process import (
    EVER,
    Routed,
    eventually,
    routed,
)
from tests.support.site.processes import free_port

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs/how-to/client.md").read_text(encoding="utf-8")
ADMIN = Actor("ada", Role.ADMIN, "pr_ada")
ASK = CompletionRequest(route="chat", messages=[Message.user("Say 12 words please.")])


@pytest.fixture
def provider() -> Iterator[str]:
    with simulator_thread.serve_in_thread(sim.simulator(time_scale=0.0)) as url:
        yield url


@pytest.fixture
def world(provider: str, tmp_path: Path) -> Iterator[Routed]:
    """Without a router of its own."""
    with routed(tmp_path, provider) as made:
        yield made


@pytest.mark.req("B1", "F3")
def test_what_a_client_does_without_a_server_is_in_the_database(world: Routed) -> None:
    with ModelClient.in_process(world.place.config, world.key) as client:
        for _ in range(3):
            client.complete(ASK)
        with client.stream(ASK) as chunks:
            assert list(chunks)

    assert world.recorded() == 4
    with world.installation.store.read() as tx:
        tokens = sum(row.output_tokens for row in Observations(tx).traffic(since=EVER))
    assert tokens > 0


@pytest.mark.req("B1")
def test_a_client_without_a_server_follows_what_is_decided(world: Routed) -> None:
    made, text = keys.create_key(
        world.installation.context,
        SYSTEM,
        "app",
        secret=world.installation.secret,
    )
    with ModelClient.in_process(world.place.config, text) as client:
        client.complete(ASK)
        keys.revoke_key(world.installation.context, SYSTEM, made.id)

        eventually(lambda: refused(client))


@pytest.mark.req("B1")
def test_threads_share_one_plain_client(world: Routed) -> None:
    with (
        ModelClient.in_process(world.place.config, world.key) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = list(pool.map(client.complete, [ASK] * 24))

    assert len({answer.served.request_id for answer in answers}) == 24
    assert world.recorded() == 24


@pytest.mark.req("B1", "B8")
def test_a_cancelled_task_ends_the_provider_s_work(upstream: Upstream, tmp_path: Path) -> None:
    upstream.turns["sim-base"] = ScriptedTurn(hang=True)
    upstream.asked.clear()
    with routed(tmp_path, upstream.url.removesuffix("/v1")) as world:

        async def cancelling() -> None:
            async with AsyncModelClient.in_process(world.place.config, world.key) as client:
                asking = asyncio.create_task(client.complete(ASK))
                while not upstream.asked_for("sim-base"):  # noqa: ASYNC110 - another thread's list
                    await asyncio.sleep(0.02)
                asking.cancel()
                await asyncio.wait({asking})
                assert asking.cancelled()

        asyncio.run(cancelling())

    assert upstream.asked_for("sim-base")[-1].left.wait(60)


@pytest.mark.req("B1", "B8")
def test_closing_a_client_ends_a_stream_that_nobody_reads(
    upstream: Upstream, tmp_path: Path
) -> None:
    # More pieces than the client keeps for a slow reader.
    words = [event({"content": f"{number} "}) for number in range(200)]
    upstream.turns["sim-base"] = broken_stream(ROLE, *words, ScriptedEvent.HANG)
    with routed(tmp_path, upstream.url.removesuffix("/v1")) as world:
        client = ModelClient.in_process(world.place.config, world.key)
        chunks = client.stream(ASK)
        assert next(iter(chunks)).text == "0 "
        chunks.close()
        client.close()
        client.close()

        with pytest.raises(InputError, match="closed"):
            client.complete(ASK)
        assert world.recorded() == 1


@pytest.mark.req("B1")
@pytest.mark.parametrize("in_process", [True, False])
def test_who_waits_for_an_answer_of_a_client_that_is_closed_is_told(
    upstream: Upstream,
    tmp_path: Path,
    *,
    in_process: bool,
) -> None:
    upstream.turns |= {
        "sim-base": ScriptedTurn(hang=True),
        "chat": ScriptedTurn(hang=True),
    }
    upstream.asked.clear()
    with routed(tmp_path, upstream.url.removesuffix("/v1")) as world:
        client = (
            ModelClient.in_process(world.place.config, world.key)
            if in_process
            else ModelClient.over_http(upstream.url, "sk-sg-any")
        )
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(client.complete, ASK)
            eventually(lambda: upstream.asked)
            client.close()
            with pytest.raises(RouterUnreachable):
                asking.result(60)


@pytest.mark.req("B1", "G5")
def test_a_client_without_a_server_serves_on_while_its_database_is_away(world: Routed) -> None:
    file = world.place.folder / "swapproof.db"
    with ModelClient.in_process(world.place.config, world.key) as client:
        client.complete(ASK)
        file.rename(file.with_suffix(".away"))
        client.complete(ASK)
        file.with_suffix(".away").rename(file)

    eventually(lambda: world.recorded() == 2)


@pytest.mark.req("D8")
def test_a_client_without_a_server_asks_nobody_who_may_not_see_the_data(world: Routed) -> None:
    ctx = replace(
        world.installation.context,
        data_classes={"personal": frozenset({"sim"})},
    )
    routes.change_settings(ctx, ADMIN, "chat", lambda old: replace(old, data_class="personal"))
    file = world.place.config
    before = file.read_text(encoding="utf-8")

    for allowed in ("other", "sim"):
        file.write_text(
            f"{before}\ndata_classes: {{personal: [{allowed}]}}\n",
            encoding="utf-8",
        )
        with ModelClient.in_process(file, world.key) as client:
            if allowed == "sim":
                assert client.complete(ASK).served.target == "sim/sim-base"
            else:
                with pytest.raises(NobodyAnswered, match="class of data"):
                    client.complete(ASK)


@pytest.mark.req("B1", "B8")
def test_a_stream_that_the_garbage_collector_finds_holds_up_no_client(
    upstream: Upstream,
) -> None:
    upstream.turns["chat"] = broken_stream(ROLE, event({"content": "one"}), ScriptedEvent.HANG)
    upstream.asked.clear()
    with ModelClient.over_http(upstream.url, "sk-sg-any") as client:
        chunks = iter(client.stream(ASK))
        assert next(chunks).text == "one"

        async def collected() -> None:
            # In the thread of the client's own loop, as the collector may choose it.
            assert isinstance(chunks, Generator)
            chunks.close()

        client._loop.run(collected())
        assert upstream.asked[-1].left.wait(60)


def test_a_client_belongs_to_one_event_loop(world: Routed) -> None:
    client = AsyncModelClient.in_process(world.place.config, world.key)
    with asyncio.Runner() as runner, asyncio.Runner() as other:
        runner.run(client.complete(ASK))
        with pytest.raises(InputError, match="event loop"):
            other.run(client.complete(ASK))
        runner.run(client.aclose())


@pytest.mark.req("B1")
def test_a_router_that_is_not_there_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with (
        ModelClient.over_http(url, "sk-sg-any") as client,
        pytest.raises(RouterUnreachable, match=re.escape(url)),
    ):
        client.complete(ASK)


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://x", "http://"])
def test_what_is_no_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(InputError, match="base_url"):
        ModelClient.over_http(url, "sk-sg-any")
    with pytest.raises(InputError, match="not a client key"):
        ModelClient.over_http("http://127.0.0.1:8080", "sk-sg-any\r\nx-swapproof-kind: eval")


@pytest.mark.req("B1")
@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (200, b"[" * 100_000, "not a JSON object"),
        (500, b"[" * 100_000, "status 500"),
        (200, b" " * 2**20 + b"{}", "more than 0 MiB"),
    ],
)
def test_an_answer_that_nobody_can_read_is_refused_in_words(
    upstream: Upstream,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    body: bytes,
    why: str,
) -> None:
    monkeypatch.setattr("harness.client.http.MOST_BYTES", 2**19)
    upstream.turns["chat"] = ScriptedTurn(status, {}, (body,))
    with (
        ModelClient.over_http(upstream.url, "sk-sg-any") as client,
        pytest.raises(swapproof.CallFailed, match=why),
    ):
        client.complete(ASK)


def test_a_client_without_a_key_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWAPPROOF_KEY", raising=False)
    with pytest.raises(InputError, match="swapproof key create"):
        ModelClient.over_http("http://127.0.0.1:8080")


@pytest.mark.req("B1")
def test_an_answer_that_asks_for_it_is_asked_for_once_more(upstream: Upstream) -> None:
    again = error(503)
    again = ScriptedTurn(
        again.status,
        {"x-should-retry": "true", "retry-after-ms": "5"},
        again.steps,
    )
    turns = iter([again, completion("then"), again, again, error(503)])
    upstream.turns["chat"] = lambda _: next(turns)
    upstream.asked.clear()
    with ModelClient.over_http(upstream.url, "sk-sg-any") as client:
        assert client.complete(ASK).text == "then"
        assert len(upstream.asked) == 2
        with pytest.raises(NobodyAnswered) as caught:
            client.complete(ASK)
        assert len(upstream.asked) == 4
        with pytest.raises(NobodyAnswered):
            client.complete(ASK)

    assert caught.value.should_retry is True
    assert caught.value.retry_after_s == 0.005
    assert len(upstream.asked) == 5


@pytest.mark.req("B8")
@pytest.mark.parametrize(
    "turn",
    [
        broken_stream(ROLE, event({"content": "one"}), ScriptedEvent.RESET),
        broken_stream(ROLE, event({"content": "one"})),
        broken_stream(ROLE, event({"content": "one"}), b"data: [DONE]\n\n"),
        broken_stream(ROLE, b"data: nonsense\n\n"),
        broken_stream(ROLE, b"data: " + b"[" * 100_000 + b"\n\n"),
        broken_stream(ROLE, b"data: " + b"x" * 300_000),  # an event without end
        broken_stream(ROLE, event(finish="stop"), b"data: [DONE]"),  # cut off
    ],
)
def test_a_connection_to_a_router_that_ends_within_a_stream_raises(
    upstream: Upstream,
    monkeypatch: pytest.MonkeyPatch,
    turn: ScriptedTurn,
) -> None:
    monkeypatch.setattr("harness.frame.sse.MAX_EVENT_BYTES", 280_000)
    upstream.turns["chat"] = turn
    with (
        ModelClient.over_http(upstream.url, "sk-sg-any") as client,
        client.stream(ASK) as chunks,
    ):
        with pytest.raises(StreamBroken):
            list(chunks)
        with pytest.raises(InputError, match="not ended"):
            chunks.response()


@pytest.mark.req("B1")
def test_a_redirect_is_not_followed_with_the_key(upstream: Upstream) -> None:
    upstream.turns["chat"] = ScriptedTurn(
        307, {"location": f"{upstream.url}/elsewhere"}, (b"{}",)
    )
    upstream.asked.clear()
    with (
        ModelClient.over_http(upstream.url, "sk-sg-any") as client,
        pytest.raises(swapproof.AnswerUnreadable, match="307"),
    ):
        client.complete(ASK)

    assert [request.path for request in upstream.asked] == ["/v1/chat/completions"]


@pytest.mark.req("B1")
def test_events_may_arrive_in_any_pieces(upstream: Upstream) -> None:
    def script_turn(asked: ReceivedRequest) -> ScriptedTurn:
        assert asked.json["stream_options"] == {"include_usage": True}
        whole = b": keep-alive\n\n" + ROLE + event({"content": "é"}) + event(finish="stop")
        whole = whole.replace(b"\n", b"\r\n") + b"data: [DONE]\n\n"
        return broken_stream(*(whole[at : at + 1] for at in range(len(whole))))

    upstream.turns["chat"] = script_turn
    with ModelClient.over_http(upstream.url, "sk-sg-any") as client:
        with client.stream(ASK) as chunks:
            assert [chunk.text for chunk in chunks if chunk.text] == ["é"]
        assert chunks.response().finish_reason == "stop"


OURS = ("harness.client.", "harness.frame.errors", "swapproof")
PLAIN = ("builtins", "collections.abc", "pathlib", "types", "typing")


def public() -> Iterator[tuple[str, object]]:
    """Every annotation that a user of the client meets, with where it stands."""
    for name in swapproof.__all__:
        found = getattr(swapproof, name)
        assert inspect.isclass(found), name
        if dataclasses.is_dataclass(found):
            yield from ((name, hint) for hint in typing.get_type_hints(found).values())
        for member, value in vars(found).items():
            if member.startswith("_") and member not in {
                "__iter__",
                "__aiter__",
            }:
                continue
            function = value.fget if isinstance(value, property) else value
            function = getattr(function, "__func__", function)
            if inspect.isfunction(function):
                hints = typing.get_type_hints(function)
                yield from ((f"{name}.{member}", hint) for hint in hints.values())


def leaves(annotation: object) -> Iterator[object]:
    inner = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is typing.Literal or not inner:
        yield annotation if origin is None else str
        return
    if origin is not None and origin is not types.UnionType:
        yield origin
    for part in inner:
        for one in part if isinstance(part, list) else [part]:
            yield from leaves(one)


@pytest.mark.req("B1")
def test_no_type_of_a_vendor_leaks_from_the_client() -> None:
    found = [(place, leaf) for place, part in public() for leaf in leaves(part)]
    foreign = {
        f"{place}: {leaf}"
        for place, leaf in found
        if leaf not in (..., None)
        and not getattr(leaf, "__module__", "?").startswith(OURS)
        and getattr(leaf, "__module__", "?") not in PLAIN
    }

    assert len(found) > 150
    assert not foreign


@pytest.mark.parametrize(
    ("code", "also"),
    [
        ("from swapproof import ModelClient", "{'aiohttp'}"),
        (
            "import swapproof as s; s.ModelClient.over_http('http://x', 'k').close()",
            "set()",
        ),
    ],
)
def test_a_client_over_http_loads_nothing_heavy(code: str, also: str) -> None:
    heavy = (
        "{'inspect_ai', 'litellm', 'numpy', 'pydantic', 'regex', 'router', 'sqlalchemy', "
        "'structlog', 'yaml'}"
    )
    script = f"import sys; {code}; print(sorted(({heavy} | {also}) & set(sys.modules)))"
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", script],
        capture_output=True,
        check=True,
        text=True,
    )

    assert done.stdout == "[]\n"


@pytest.mark.req("B1")
def test_every_example_of_the_docs_works(
    provider: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    examples = re.findall(r"```python\n(.*?)```", DOCS, flags=re.DOTALL)
    tiers = {
        "kind": "sim",
        "api_base": f"{provider}/v1",
        "tiers": {"fast": "sim-better"},
    }
    made = routed(
        tmp_path,
        provider,
        providers={"sim": tiers},
        routes={
            "support": {"incumbent": "sim/sim-base"},
            "fast": {"incumbent": "sim"},
        },
    )
    with made as world:
        world.start()
        monkeypatch.setenv("SWAPPROOF_KEY", world.key)
        monkeypatch.chdir(world.place.folder)
        before = threading.active_count()
        for number, text in enumerate(examples):
            here = text.replace("http://127.0.0.1:8080", world.url)
            exec(  # noqa: S102 - the documented code is what is tried
                compile(
                    here,
                    f"docs/how-to/client.md, example {number + 1}",
                    "exec",
                ),
                {},
            )
            shown = capsys.readouterr()
            assert shown.out.strip(), text
            assert not shown.err

    assert len(examples) == 6
    assert threading.active_count() <= before


def test_the_docs_name_every_error_of_a_call() -> None:
    kinds = [
        name
        for name in swapproof.__all__
        if issubclass(getattr(swapproof, name), swapproof.CallFailed)
    ]

    assert [name for name in kinds if f"`{name}`" not in DOCS] == []


def refused(client: ModelClient) -> bool:
    try:
        client.complete(ASK)
    except KeyRefused:
        return True
    return False
