import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.routing.route_settings import RouteSettings
from router.recording.internal_errors import RouterPart
from router.request import client_directives, model_endpoint
from router.request.request_observers import (
    RequestObserver,
    RequestObservers,
)
from router.request.request_state import RoutedRequest
from router.request.routed_response import RoutedResponse
from router.upstream.transport import UpstreamRequest
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    completion,
    error,
    streamed,
)
from tests.support.router.asgi_router import ASK, CHAT, Door, code
from tests.support.router.live_router import KEY, NARROW_KEY, QUICK, snapshot


async def test_a_router_whose_database_has_no_route_says_what_to_do(tmp_path: Path) -> None:
    full = snapshot("http://127.0.0.1:1/v1")
    table = replace(full.table, routes={})
    door = Door(tmp_path, first=replace(full, table=table))

    status, _, body = await door.call(CHAT, ASK)

    assert (status, code(body)) == (404, "model_not_found")
    told = json.loads(body)["error"]["message"]
    assert told.startswith("there is no route 'support', nor any other")
    assert "run `swapproof config apply`" in told


async def test_a_caller_who_leaves_before_the_body_costs_nothing(tmp_path: Path) -> None:
    door = Door(tmp_path)

    assert await door.call(CHAT, leave=True) == (0, {}, b"")
    assert not door.transport.seen


async def test_a_full_worker_says_so_at_once(tmp_path: Path) -> None:
    event = asyncio.Event()

    def hang(_: UpstreamRequest) -> ScriptedTurn:
        event.set()
        return ScriptedTurn(hang=True)

    door = Door(tmp_path, hang, replace(QUICK, max_concurrent=1))
    first = asyncio.create_task(door.call(CHAT, ASK))
    await event.wait()

    status, headers, body = await door.call(CHAT, ASK)

    assert (status, code(body)) == (503, "overloaded")
    assert headers[b"retry-after"] == b"1"
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert door.recorder.counters["refused_when_full"] == 1
    door.script = lambda _: completion()
    assert (await door.call(CHAT, ASK))[0] == 200


async def test_before_there_is_a_snapshot_it_is_not_ready(tmp_path: Path) -> None:
    door = Door(tmp_path, booted=False)

    assert (await door.call("/readyz", method="GET"))[0] == 503
    assert (await door.call("/healthz", method="GET"))[0] == 200
    assert code((await door.call(CHAT, ASK))[2]) == "not_ready"


async def test_a_stale_or_refused_snapshot_is_called_degraded(tmp_path: Path) -> None:
    door = Door(tmp_path)
    degraded = b'{"status":"degraded","reason":"%s"}'

    door.holder.stale = True
    assert (await door.call("/readyz", method="GET"))[2] == degraded % b"database_away"
    door.holder.stale = False
    door.holder.refused = "why"
    assert (await door.call("/readyz", method="GET"))[2] == degraded % b"revision_refused"


async def test_the_providers_headers_are_passed_on_but_for_the_hops(tmp_path: Path) -> None:
    extra = {
        "content-type": "application/json",
        "x-ratelimit-remaining": "7",
        "connection": "keep-alive, x-hop",
        "x-hop": "1",
        "set-cookie": "a=b",
        "server": "theirs",
        "openai-organization": "secret-org",
        "x-swapproof-arm": "a lie",
    }
    answer = ScriptedTurn(headers=extra, steps=completion().steps)

    _, headers, _ = await Door(tmp_path, lambda _: answer).call(CHAT, ASK)

    assert headers[b"x-ratelimit-remaining"] == b"7"
    assert headers[b"x-swapproof-arm"] == b"incumbent"
    gone = {
        b"connection",
        b"x-hop",
        b"set-cookie",
        b"server",
        b"openai-organization",
    }
    assert not gone & headers.keys()


@pytest.mark.parametrize(
    "turn",
    [
        completion(),
        error(400),
        error(500),
        streamed("a"),
    ],
)
async def test_every_routed_answer_says_what_happened(
    tmp_path: Path, turn: ScriptedTurn
) -> None:
    streaming = turn.headers["content-type"] == "text/event-stream"
    body = ASK[:-1] + b',"stream":true}' if streaming else ASK

    _, headers, _ = await Door(tmp_path, lambda _: turn).call(CHAT, body)

    said = {name.decode() for name in headers if name.startswith(b"x-swapproof-")}
    names = {"route", "arm", "revision", "attempts", "request-id"}
    assert said >= {f"x-swapproof-{name}" for name in names}
    assert (b"x-swapproof-target" in headers) is (turn.status != 500)


async def test_a_second_try_of_a_target_is_on_a_fresh_connection(tmp_path: Path) -> None:
    answers = iter([ScriptedTurn(refuse=True), completion()])
    door = Door(tmp_path, lambda _: next(answers))

    status, headers, _ = await door.call(CHAT, ASK)

    assert (status, headers[b"x-swapproof-attempts"]) == (200, b"2")
    assert [request.fresh for request in door.transport.seen] == [False, True]


@pytest.mark.parametrize("stream", ['"yes"', "1", "[]"])
async def test_stream_must_be_a_boolean(tmp_path: Path, stream: str) -> None:
    status, _, body = await Door(tmp_path).call(
        CHAT, f'{{"model":"support","stream":{stream}}}'.encode()
    )

    assert status == 400
    assert json.loads(body)["error"]["param"] == "stream"


@pytest.mark.spine
@pytest.mark.req("A3")
@pytest.mark.parametrize(
    ("model", "task", "key", "outcome"),
    [
        ("other", b"triage", KEY, (200, b"support")),
        ("anything", b"triage", KEY, (200, b"support")),
        ("other", b"poetry", KEY, (200, b"other")),
        ("anything", b"poetry", KEY, (404, None)),
        ("other", b"triage", NARROW_KEY, (403, None)),
    ],
)
async def test_a_task_picks_its_route_where_the_key_may_use_it(
    tmp_path: Path,
    model: str,
    task: bytes,
    key: str,
    outcome: tuple[int, bytes | None],
) -> None:
    first = snapshot("http://127.0.0.1:1/v1")
    support = replace(first.table.routes["support"], settings=RouteSettings(task="triage"))
    table = replace(first.table, routes={**first.table.routes, "support": support})
    door = Door(tmp_path, first=replace(first, table=table))
    bearer = (b"authorization", f"Bearer {key}".encode())

    asked = json.dumps({**json.loads(ASK), "model": model}).encode()
    status, headers, _ = await door.call(
        CHAT,
        asked,
        headers=(bearer, (b"x-swapproof-task", task)),
    )

    assert (status, headers.get(b"x-swapproof-route")) == outcome


class Witness(RequestObserver):
    part = RouterPart.RECORDING

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []

    def before_attempt(self, observed: RoutedRequest) -> None:
        self.begun.append(observed.request_id)

    def at_end(self, observed: RoutedRequest, response: RoutedResponse) -> None:  # noqa: ARG002 - the hook's
        self.ended.append(observed.request_id)


class BrokenOff(Exception):
    """A fault of ours that nothing catches."""


def break_off(*_: object, **__: object) -> None:
    raise BrokenOff


@pytest.fixture
def witness(monkeypatch: pytest.MonkeyPatch) -> Witness:
    seen = Witness()
    build = RequestObservers.__init__

    def with_witness(  # type: ignore[no-untyped-def]
        self,
        always,
        of_evidence,
        errors,
    ) -> None:
        build(self, [seen, *always], of_evidence, errors)

    monkeypatch.setattr(RequestObservers, "__init__", with_witness)
    return seen


async def ask(folder: Path) -> None:
    # What the router answers then is tested elsewhere.
    await Door(folder).call(CHAT, ASK)


async def test_the_end_comes_where_the_request_breaks_off_right_after_its_beginning(
    witness: Witness,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin = RequestObservers.begin

    def begin_and_break_off(self: RequestObservers, observed: RoutedRequest) -> None:
        begin(self, observed)
        raise BrokenOff

    monkeypatch.setattr(RequestObservers, "begin", begin_and_break_off)

    await ask(tmp_path)

    assert len(witness.begun) == 1
    assert witness.ended == witness.begun


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (client_directives, "client_headers"),
        (model_endpoint, "RoutedResponse"),
        (RoutedResponse, "_build_reply"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
async def test_who_saw_the_beginning_sees_the_end_whatever_fails_on_the_way(
    witness: Witness,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
) -> None:
    monkeypatch.setattr(owner, name, break_off)

    await ask(tmp_path)

    assert witness.ended == witness.begun
