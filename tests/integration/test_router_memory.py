import gc
import json
import os
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.faults import soak
from harness.routing.table import Snapshot
from router.frame.failure import UpstreamFailed
from router.request.request_state import Attempt, RequestProgress
from router.request.routed_response import RoutedResponse
from router.server.connection import Connection
from router.snapshot.compiled import CompiledRoute
from router.upstream.origin_pool import IDLE_S
from router.upstream.pool_connection import PoolConnection
from tests.support.providers.scripted_transport import (
    ScriptedEvent,
    ScriptedTurn,
)
from tests.support.providers.scripted_upstream import (
    EVENTS,
    completion,
    running_upstream,
    streamed,
)
from tests.support.router.live_router import (
    CANDIDATE,
    FALLBACK,
    INCUMBENT,
    KEY,
    QUICK,
    World,
    running_router,
    snapshot,
    wait_until,
)

pytestmark = pytest.mark.req("B8")

ASKED = 10
# No circuit opens: each request fails at the first target.
PATIENT = replace(QUICK, breaker=replace(QUICK.breaker, failures=1000))
OF_A_REQUEST = (
    RoutedResponse,
    Attempt,
    RequestProgress,
    UpstreamFailed,
    Connection,
    PoolConnection,
)
FAILURES = {
    "status": ScriptedTurn(status=503, steps=(b"{}",)),
    "rate limit": ScriptedTurn(status=429, headers={"retry-after": "60"}, steps=(b"{}",)),
    "html": ScriptedTurn(headers={"content-type": "text/html"}, steps=(b"<html>",)),
    "garbage": ScriptedTurn(headers={"content-type": "application/json"}, steps=(b"nonsense",)),
    "reset": ScriptedTurn(steps=(ScriptedEvent.RESET,)),
    "reset within": ScriptedTurn(headers=EVENTS, steps=(b": ping\n\n", ScriptedEvent.RESET)),
}


def kept() -> Counter[str]:
    found = (type(object_) for object_ in gc.get_objects())
    return Counter(kind.__name__ for kind in found if kind in OF_A_REQUEST)


@contextmanager
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def connected(world: World, *, stream: bool) -> socket.socket:
    words = {
        "model": "support",
        "messages": [{"role": "user", "content": "hi"}],
    }
    body = json.dumps({**words, "stream": stream}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        f"authorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    port = int(world.url.rpartition(":")[2])
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.sendall(head.encode() + body)
    return client


def ask(world: World, *, stream: bool) -> bytes:
    with connected(world, stream=stream) as client:
        return b"".join(iter(lambda: client.recv(65536), b""))


def leave(world: World) -> None:
    """Hang up once the answer has begun."""
    with connected(world, stream=True) as client:
        assert client.recv(65536)


@pytest.mark.parametrize("stream", [False, pytest.param(True, marks=pytest.mark.verify)])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_attempt_leaves_nothing_for_the_garbage_collector(
    failure: str,
    stream: bool,  # noqa: FBT001 - pytest gives it by name
    tmp_path: Path,
) -> None:
    spare = streamed("a") if stream else completion("a")
    with running_upstream() as upstream:
        upstream.turns = {INCUMBENT: FAILURES[failure], FALLBACK: spare}
        upstream.hangs_up = True
        with running_router(snapshot(upstream.url, fallback=True), tmp_path, PATIENT) as world:
            ask(world, stream=stream)
            with uncollected():
                before = kept()
                for _ in range(ASKED):
                    assert b"200 OK" in ask(world, stream=stream)
                # A connection that the provider closed may lie in the pool until it is swept.
                wait_until(lambda: kept() <= before, timeout_s=2 * IDLE_S)


def test_a_provider_that_is_not_there_leaves_nothing_for_the_garbage_collector(
    tmp_path: Path,
) -> None:
    nobody = snapshot("http://127.0.0.1:1/v1")
    with running_router(nobody, tmp_path, PATIENT) as world:
        ask(world, stream=False)
        with uncollected():
            before = kept()
            for _ in range(ASKED):
                assert b"HTTP/1.1 502" in ask(world, stream=False)
            wait_until(lambda: kept() <= before)


def test_a_client_that_leaves_leaves_nothing_for_the_garbage_collector(tmp_path: Path) -> None:
    begun = streamed("a").steps[:2]
    with running_upstream() as upstream:
        upstream.turns = {
            INCUMBENT: ScriptedTurn(headers=EVENTS, steps=(*begun, ScriptedEvent.HANG))
        }
        with (
            running_router(snapshot(upstream.url), tmp_path, PATIENT) as world,
            uncollected(),
        ):
            for _ in range(ASKED):
                leave(world)
            wait_until(
                lambda: sum(request.left.is_set() for request in upstream.asked) == ASKED
            )
            wait_until(lambda: not kept())


@pytest.mark.parametrize("weight_bps", [0, 10_000])
def test_the_routes_of_earlier_revisions_are_let_go(weight_bps: int, tmp_path: Path) -> None:
    def routes() -> int:
        gc.collect()
        return sum(type(object_) is CompiledRoute for object_ in gc.get_objects())

    def serving(revision: int) -> Snapshot:
        return snapshot(upstream.url, weight_bps=weight_bps, revision=revision)

    with running_upstream() as upstream:
        upstream.turns = {
            INCUMBENT: completion("a"),
            CANDIDATE: completion("a"),
        }
        with running_router(serving(3), tmp_path, PATIENT) as world:
            assert b"200 OK" in ask(world, stream=False)
            before = routes()
            for revision in range(4, 10):
                world.store.put(serving(revision))
                wait_until(lambda: revision_of(world) == revision)  # noqa: B023 - called at once
                assert b"200 OK" in ask(world, stream=False)
            wait_until(lambda: routes() <= before)


def revision_of(world: World) -> int | None:
    serving = world.holder.current
    return serving.revision if serving is not None else None


SECONDS = float(os.environ.get("SOAK_S", "1800"))


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.req("A5", "B8", "B9")
def test_under_mixed_faults_nothing_grows_and_nothing_is_lost(tmp_path: Path) -> None:
    run = soak.soak(tmp_path, seconds=SECONDS, rate=20.0)

    assert run.faults() == []
