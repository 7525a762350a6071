"""The router passes requests for `/agents` through to the agents process, over real sockets."""

import asyncio
import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from harness.agents.caller import (
    HeaderFault,
    read_peer_header,
    sign_peer_header,
)
from harness.routing.settings import (
    AgentSettings,
    CorsSettings,
    RouterSettings,
)
from tests.support.providers.scripted_upstream import (
    completion,
    running_upstream,
)
from tests.support.router.agents_upstream import (
    AgentsLine,
    AgentsUpstream,
    PassedRequest,
    answer,
    running_agents,
)
from tests.support.router.asgi_router import AUTH, Door, code
from tests.support.router.live_router import (
    INCUMBENT,
    KEY,
    QUICK,
    SECRET,
    World,
    running_router,
    snapshot,
    wait_until,
)
from tests.support.site.processes import free_port

pytestmark = pytest.mark.req("E1", "E2")

SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
CHUNKED = SSE_HEAD + b"transfer-encoding: chunked\r\n\r\n"
MODEL_BODY = b'{"model":"support","messages":[{"role":"user","content":"hi"}]}'
MODEL_HEADERS = {
    "authorization": f"Bearer {KEY}",
    "content-type": "application/json",
}


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def echo(request: PassedRequest, line: AgentsLine) -> bool:
    """Answers as a path's last part says, and keeps the connection."""
    target = request.line.split(" ")[1]
    if target.endswith("/gone"):
        answered = b"HTTP/1.1 204 No Content\r\n\r\n"
    elif target.endswith("/missing"):
        answered = answer(b'{"error":{}}', status="404 Not Found", more="x-kept: yes\r\n")
    elif target.endswith("/large"):
        answered = answer(b"x" * 3_000_000)
    elif request.line.startswith("HEAD"):
        answered = answer(b"{}").removesuffix(b"{}")
    else:
        answered = answer(more="connection: keep-alive\r\nserver: theirs\r\n")
    await line.send(answered)
    return True


@pytest.fixture(scope="module")
def agents() -> Iterator[AgentsUpstream]:
    with running_agents(echo) as upstream:
        yield upstream


def settings(upstream: AgentsUpstream, **more: object) -> AgentSettings:
    return replace(AgentSettings(url=upstream.url), **more)  # type: ignore[arg-type]  # a test's own fields


@pytest.fixture(scope="module")
def world(agents: AgentsUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("router")
    # Nobody listens where its provider is: what is asked here is for agents alone.
    with running_router(
        snapshot("http://127.0.0.1:1/v1"),
        folder,
        agents=settings(agents, max_message_bytes=100_000),
    ) as running:
        yield running


Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def router(
    upstream: AgentsUpstream,
    folder: Path,
    given: RouterSettings = QUICK,
) -> Iterator[World]:
    first = snapshot("http://127.0.0.1:1/v1")
    with running_router(first, folder, given, agents=settings(upstream)) as running:
        yield running


@contextmanager
def killed_after(
    before: bytes,
    head: bytes,
    folder: Path,
) -> Iterator[tuple[http.client.HTTPConnection, World]]:
    """A request under way whose agents process sends head and body so far, and is killed."""

    async def play(_: PassedRequest, line: AgentsLine) -> bool:
        chunked = b"chunked" in head and before
        await line.send(head + (chunk(before) if chunked else before))
        # Else the reset may overtake the bytes.
        await asyncio.sleep(0.2)
        line.server.kill()
        await asyncio.Event().wait()
        return False

    with (
        running_agents(play) as upstream,
        router(upstream, folder) as running,
    ):
        client = connection(running)
        client.request("POST", "/agents/a/sessions/s/messages", b"{}")
        yield client, running
        client.close()


def connection(world: World) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(world.url).netloc, timeout=60)


def ask(
    world: World,
    path: str,
    method: str = "GET",
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    client = connection(world)
    try:
        client.request(method, path, body, headers or {})
        got = client.getresponse()
        return (
            got.status,
            {k.lower(): v for k, v in got.getheaders()},
            got.read(),
        )
    finally:
        client.close()


def peer(request: PassedRequest) -> str | HeaderFault:
    (header,) = request.all("x-swapproof-peer")
    return read_peer_header(header.encode(), SECRET, time.time())  # noqa: TID251 - the real clock's


async def test_a_listed_pages_preflight_is_answered_by_the_router(
    agents: AgentsUpstream, tmp_path: Path
) -> None:
    page = b"https://chat.example.com"
    listed = replace(QUICK, cors=CorsSettings((page.decode(),)))
    door = Door(tmp_path, settings=listed, agents=settings(agents))

    status, headers, _ = await door.call(
        "/agents/ag_1/sessions",
        method="OPTIONS",
        headers=((b"origin", page),),
    )

    assert (status, headers[b"access-control-allow-origin"]) == (204, page)
    assert b"PATCH" in headers[b"access-control-allow-methods"]


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "PUT", "DELETE", "HEAD", "OPTIONS"])
@pytest.mark.parametrize(
    "target",
    [
        "/agents",
        "/agents/",
        "/agents?limit=2&after=a%20b",
        "/agents/ag_1/sessions/se%2F1?x=%00",
    ],
)
def test_every_method_path_and_query_arrives_as_it_was_sent(
    world: World,
    agents: AgentsUpstream,
    method: str,
    target: str,
) -> None:
    body = b'{"name":"helper"}' if method in {"POST", "PATCH", "PUT"} else None

    status, headers, answered = ask(
        world,
        target,
        method,
        body,
    )

    request = agents.requests[-1]
    assert request.line == f"{method} {target} HTTP/1.1"
    assert request.body == (body or b"")
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert answered == (b"" if method == "HEAD" else b'{"id":"ag_1"}')


def test_the_clients_own_headers_go_along_and_those_of_one_hop_do_not(
    world: World, agents: AgentsUpstream
) -> None:
    ask(
        world,
        "/agents",
        "POST",
        b"{}",
        {
            "Authorization": "Bearer sk-sg-somebody",
            "Idempotency-Key": "once",
            "Origin": "http://evil.example",
            "Host": "agents.example:8080",
            "Accept": "text/event-stream",
            "Connection": "keep-alive, x-hop",
            "X-Hop": "1",
            "TE": "trailers",
            "Proxy-Authorization": "Basic eDp5",
            "X-Forwarded-Host": "localhost",
        },
    )

    request = agents.requests[-1]
    assert request.all("authorization") == ["Bearer sk-sg-somebody"]
    assert request.all("idempotency-key") == ["once"]
    assert request.all("origin") == ["http://evil.example"]
    assert request.all("host") == ["agents.example:8080"]
    assert request.all("accept") == ["text/event-stream"]
    assert request.all("content-length") == ["2"]
    assert len(request.all("x-swapproof-request-id")) == 1
    hop = {
        "connection",
        "x-hop",
        "te",
        "proxy-authorization",
        "x-forwarded-host",
    }
    assert not hop & {name for name, _ in request.headers}


def test_the_true_peer_is_signed_and_a_clients_word_on_it_is_dropped(
    world: World, agents: AgentsUpstream
) -> None:
    ask(world, "/agents")
    assert peer(agents.requests[-1]) == "127.0.0.1"

    now = time.time()  # noqa: TID251 - the real clock's
    own = sign_peer_header("192.0.2.9", b"another secret", now).decode()
    ask(
        world,
        "/agents",
        headers={"x-swapproof-peer": own, "x-swapproof-agent": own},
    )

    assert peer(agents.requests[-1]) == "127.0.0.1"
    assert not agents.requests[-1].all("x-swapproof-agent")


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-For",
        "Forwarded",
        "Via",
        "X-Real-IP",
        "X-Forwarded-Proto",
    ],
)
def test_who_comes_through_a_proxy_of_this_machine_is_nobody_of_it(
    world: World,
    agents: AgentsUpstream,
    header: str,
) -> None:
    ask(world, "/agents", headers={header: "127.0.0.1"})

    assert peer(agents.requests[-1]) == "unknown"
    assert not agents.requests[-1].all(header.lower())


async def test_a_trusted_proxy_says_who_its_client_is_and_never_that_it_is_local(
    agents: AgentsUpstream, tmp_path: Path
) -> None:
    trusting = replace(QUICK, trusted_proxies=("127.0.0.1",))
    door = Door(tmp_path, settings=trusting, agents=settings(agents))
    for forwarded, address in (
        (b"198.51.100.7", "198.51.100.7"),
        (b"127.0.0.1", "unknown"),
    ):
        header = (b"x-forwarded-for", forwarded)
        await door.call(
            "/agents",
            method="GET",
            headers=(header,),
            peer="127.0.0.1",
        )
        (signed,) = agents.requests[-1].all("x-swapproof-peer")
        at = door.clock.now().timestamp()
        assert read_peer_header(signed.encode(), SECRET, at) == address
    door.app._agents.close()  # type: ignore[union-attr]  # no lifespan ends it


def test_answers_of_every_kind_come_back_as_they_are_with_one_date_and_the_routers_id(
    world: World,
) -> None:
    status, headers, body = ask(world, "/agents/missing")
    assert (status, body, headers["x-kept"]) == (404, b'{"error":{}}', "yes")
    assert ask(world, "/agents/gone", "DELETE")[0] == 204
    assert ask(world, "/agents/large")[2] == b"x" * 3_000_000
    client = connection(world)
    client.request("GET", "/agents")
    got = client.getresponse()
    got.read()
    names = [name.lower() for name, _ in got.getheaders()]
    client.close()
    assert len(names) == len(set(names))
    assert "x-swapproof-request-id" in names
    assert got.getheader("server") != "theirs"


def test_what_is_too_large_ambiguous_or_elsewhere_is_never_passed_on(
    world: World, agents: AgentsUpstream
) -> None:
    before = len(agents.requests)
    status, _, body = ask(
        world,
        "/agents",
        "POST",
        b"x" * 100_001,
    )
    assert (status, code(body)) == (413, "request_too_large")
    with socket.create_connection(("127.0.0.1", urlsplit(world.url).port or 0)) as wire:
        wire.sendall(b"GET /agents HTTP/1.1\r\nhost: localhost\r\nhost: evil\r\n\r\n")
        assert wire.recv(100).startswith(b"HTTP/1.1 400 ")
    for path in ("/agentss", "/agent", "/Agents", "/v1/agents"):
        status, _, body = ask(world, path)
        assert (status, code(body)) == (404, "unknown_url")
    assert len(agents.requests) == before
    assert ask(world, "/agents", "POST", b"x" * 100_000)[0] == 200


def test_each_request_has_a_connection_of_its_own(world: World, agents: AgentsUpstream) -> None:
    """A kept one may close just then: the router could not tell what was done."""
    before = agents.accepted
    for method in ("GET", "POST", "POST"):
        assert ask(world, "/agents", method, b"{}")[0] == 200
    assert agents.accepted == before + 3
    # A connection that no request will use again does not stay open.
    wait_until(lambda: agents.open_connections == 0)


def test_requests_are_counted(world: World) -> None:
    ask(world, "/agents")
    headers = {"authorization": f"Bearer {KEY}"}
    text = ask(world, "/metrics", headers=headers)[2].decode()
    assert "swapproof_router_agents_requests_total" in text
    assert "swapproof_router_agents_under_way 0.0" in text


async def test_where_nothing_is_configured_there_is_nothing(tmp_path: Path) -> None:
    for number, none in enumerate((None, AgentSettings(url=""), AgentSettings(enabled=False))):
        door = Door(tmp_path / str(number), agents=none)
        status, _, body = await door.call("/agents", method="GET")
        assert (status, code(body)) == (404, "unknown_url")


async def test_within_another_program_it_works_as_well(
    agents: AgentsUpstream, tmp_path: Path
) -> None:
    """Without a socket there is no peer, and nobody is taken for this machine's."""
    door = Door(tmp_path, agents=settings(agents))
    status, _, body = await door.call(
        "/agents",
        b'{"name":"n"}',
        peer="",
        headers=(AUTH,),
    )
    door.app._agents.close()  # type: ignore[union-attr]  # no lifespan ends it
    assert (status, body) == (200, b'{"id":"ag_1"}')
    (signed,) = agents.requests[-1].all("x-swapproof-peer")
    assert read_peer_header(signed.encode(), SECRET, door.clock.now().timestamp()) == ""
    assert agents.requests[-1].all("host") == [f"127.0.0.1:{agents.port}"]


@pytest.mark.parametrize(
    ("path", "header"),
    [
        ("/agents", (b"x-note", b"a\r\nx-swapproof-peer: v1.x.y")),
        ("/agents", (b"x-note\r\nx-more", b"a")),
        ("/agents", (b"x note", b"a")),
        ("/agents", (b"host", b"a\nb")),
        ("/agents", (b"x-note", b"a\0b")),
        ("/agents\r\nx: y", (b"x-note", b"a")),
    ],
)
async def test_what_http_cannot_carry_is_never_sent_on(
    agents: AgentsUpstream,
    tmp_path: Path,
    path: str,
    header: tuple[bytes, bytes],
) -> None:
    """Another program that the router runs in may pass on anything."""
    before = len(agents.requests)
    door = Door(tmp_path, agents=settings(agents))
    status, _, body = await door.call(
        path,
        b"{}",
        headers=(header,),
    )
    door.app._agents.close()  # type: ignore[union-attr]  # no lifespan ends it
    assert (status, code(body)) in {
        (400, "invalid_request"),
        (404, "unknown_url"),
    }
    assert len(agents.requests) == before


def test_events_arrive_one_by_one_as_they_are_sent(tmp_path: Path) -> None:
    """Each is sent only once what was before it was read, the head included."""
    begun = asyncio.Event()
    heard = asyncio.Event()

    async def play(_: PassedRequest, line: AgentsLine) -> bool:
        await line.send(CHUNKED)
        await begun.wait()
        await line.send(chunk(b"data: one\n\n"))
        await heard.wait()
        await line.send(chunk(b"data: two\n\n") + b"0\r\n\r\n")
        return True

    with (
        running_agents(play) as upstream,
        router(upstream, tmp_path) as running,
    ):
        client = connection(running)
        client.request("POST", "/agents/a/sessions/s/messages", b"{}")
        got = client.getresponse()
        assert got.getheader("content-type") == "text/event-stream; charset=utf-8"
        upstream.loop.call_soon_threadsafe(begun.set)
        assert got.read1() == b"data: one\n\n"
        upstream.loop.call_soon_threadsafe(heard.set)
        assert got.read() == b"data: two\n\n"
        client.close()


def test_a_client_who_leaves_ends_the_request_at_the_agents_process(tmp_path: Path) -> None:
    async def play(_: PassedRequest, line: AgentsLine) -> bool:
        await line.send(CHUNKED + chunk(b"data: one\n\n"))
        await line.until_left()
        return False

    with (
        running_agents(play) as upstream,
        router(upstream, tmp_path) as running,
    ):
        client = connection(running)
        client.request("GET", "/agents/a/events")
        got = client.getresponse()
        assert got.read1() == b"data: one\n\n"
        assert upstream.open_connections == 1
        got.close()
        client.close()
        wait_until(lambda: upstream.open_connections == 0)


@pytest.mark.parametrize(
    ("before", "head"),
    [
        (b"\x1f\x8b..", CHUNKED[:-2] + b"content-encoding: gzip\r\n\r\n"),
        (b'{"id":', b"HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n"),
        (
            b'{"id":',
            CHUNKED.replace(b"text/event-stream", b"application/json "),
        ),
        (b"data: one\n\n", CHUNKED),
    ],
    ids=["compressed events", "plain", "plain in chunks", "events"],
)
def test_an_answer_that_breaks_off_is_never_taken_for_whole(
    tmp_path: Path,
    before: bytes,
    head: bytes,
) -> None:
    with killed_after(before, head, tmp_path) as (client, running):
        with pytest.raises(http.client.IncompleteRead) as error:
            client.getresponse().read()
        assert error.value.partial == before
        wait_until(lambda: running.recorder.counters["agents_broke_off"] == 1)


def test_a_process_that_is_away_or_killed_before_its_answer_is_503_and_never_asked_twice(
    tmp_path: Path,
) -> None:
    with killed_after(b"", b"", tmp_path / "killed") as (client, _):
        got = client.getresponse()
        assert (got.status, code(got.read())) == (503, "agents_unavailable")

    async def play(_: PassedRequest, line: AgentsLine) -> bool:
        line.writer.transport.abort()
        return False

    gone = AgentSettings(url=f"http://127.0.0.1:{free_port()}")
    first = snapshot("http://127.0.0.1:1/v1")
    with running_agents(play) as upstream:
        for number, where in enumerate((settings(upstream), gone)):
            with running_router(first, tmp_path / str(number), agents=where) as running:
                status, headers, body = ask(
                    running,
                    "/agents/a",
                    "POST",
                    b"{}",
                )
            assert (status, code(body)) == (503, "agents_unavailable")
            assert int(headers["retry-after"]) >= 1
            assert json.loads(body)["error"]["type"] == "router_error"
        assert len(upstream.requests) == 1


def test_models_are_served_while_the_agents_process_is_away_and_hangs(tmp_path: Path) -> None:
    async def hang(_: PassedRequest, line: AgentsLine) -> bool:
        await line.until_left()
        return False

    with running_upstream() as provider, running_agents(hang) as upstream:
        provider.turns = {INCUMBENT: lambda _: completion("hello")}
        few = replace(QUICK, max_concurrent=3)
        first = snapshot(provider.url)
        with running_router(first, tmp_path, few, agents=settings(upstream)) as running:
            waiting = [connection(running) for _ in range(3)]
            for client in waiting:
                client.request("GET", "/agents")
            wait_until(lambda: len(upstream.requests) == 3)

            status, headers, body = ask(running, "/agents")
            assert (status, code(body)) == (503, "overloaded")
            assert "retry-after" in headers
            chat = ask(
                running,
                "/v1/chat/completions",
                "POST",
                MODEL_BODY,
                MODEL_HEADERS,
            )
            assert chat[0] == 200
            for client in waiting:
                client.close()
            wait_until(lambda: not upstream.open_connections)
