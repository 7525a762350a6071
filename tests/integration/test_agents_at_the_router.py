"""Agents at the router's address: router and agents process are real, and the agents process is
killed.
"""

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.router.router_process import ROUTE, Routed, routed
from tests.support.site.processes import free_port

pytestmark = [pytest.mark.req("E1", "E2"), pytest.mark.slow]

Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture(scope="module")
def world(provider: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routed]:
    port, folder = free_port(), tmp_path_factory.mktemp("agents")
    agents = {"port": port, "open_on_loopback": True}
    with routed(folder, provider, agents=agents) as world:
        world.place.ports["agents"] = port
        world.start("--workers", "2")
        start_agents(world)
        yield world


def start_agents(world: Routed) -> None:
    world.place.start("agents", "serve", "agents", wait_for="/readyz")


def call(world: Routed, method: str, path: str, body: object = None, **headers: str) -> Answer:
    """A request to the router, as plain curl makes it."""
    client = http.client.HTTPConnection(urlsplit(world.url).netloc, timeout=120)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    text = None if body is None else json.dumps(body)
    try:
        client.request(method, path, text, {"content-type": "application/json", **given})
        got = client.getresponse()
        return got.status, {k.lower(): v for k, v in got.getheaders()}, got.read()
    finally:
        client.close()


def read(answer: Answer) -> Any:
    assert answer[0] < 300, answer
    return json.loads(answer[2])


def session_path(world: Routed) -> str:
    agent = read(call(world, "POST", "/agents", {"name": "helper", "model": ROUTE}))
    path = f"/agents/{agent['id']}/sessions"
    return f"{path}/{read(call(world, 'POST', path, {'userId': 'u'}))['id']}/messages"


def test_a_conversation_is_held_at_the_routers_address_without_a_key(world: Routed) -> None:
    path = session_path(world)

    answered = read(call(world, "POST", path, {"role": "user", "content": "Colour number 3?"}))
    assert answered["content"]
    question = {"role": "user", "content": "And number 4?", "stream": True}
    status, headers, events = call(world, "POST", path, question)

    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert b"event: turn.completed" in events
    roles = [message["role"] for message in read(call(world, "GET", path))["items"]]
    assert roles == ["user", "assistant", "user", "assistant"]


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"origin": "http://evil.example"},
        {"x_forwarded_for": "127.0.0.1"},
        {"x_swapgate_peer": "v1.e30.00"},
        {"content_type": "text/plain"},
    ],
)
def test_no_web_page_and_no_proxy_gets_there_without_a_key(
    world: Routed, headers: dict[str, str]
) -> None:
    status, _, body = call(world, "POST", "/agents", {"name": "n", "model": ROUTE}, **headers)
    # A client's own word on the peer is dropped, and changes nothing.
    assert status == (201 if "x_swapgate_peer" in headers else status)
    assert "x_swapgate_peer" in headers or status in {401, 403, 415}, body
