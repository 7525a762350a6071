"""A compiled plan of a running connection ends with its revision: the next request on the same
head sees each change.

Other staleness has its own tests: a revoked key in `test_known_heads`, a budget at its end in
`test_router_admission`, a learned repair in `test_request_repair`, the time until a router sees
a change in `test_several_routers`.
"""

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from weakref import ReferenceType, ref

import pytest

from harness.routing.route_settings import RouteSettings
from harness.routing.table import Snapshot
from router.frame.asgi import Message
from router.observers.feedback import FEEDBACK_PATH
from router.snapshot.compiled import CompiledRoute
from tests.support.providers.scripted_upstream import completion
from tests.support.router.asgi_router import AUTH, CHAT, Door
from tests.support.router.live_router import (
    CANDIDATE,
    FALLBACK,
    INCUMBENT,
    snapshot,
    switch_of,
)

CALLER = b'{"model":"support","user":"u","messages":[{"role":"user","content":"hi"}]}'
ALL_BUT_ONE_BUCKET = 9_999


def throw_switch(before: Snapshot) -> Snapshot:
    return replace(
        before, switches=(switch_of(f"avoid:target:up/{CANDIDATE}", route="support"),)
    )


def roll_back(before: Snapshot) -> Snapshot:
    return replace(before, table=snapshot("http://up", fallback=True, revision=4).table)


def change_data_class(before: Snapshot) -> Snapshot:
    route = before.table.routes["support"]
    secret = replace(route, settings=RouteSettings(data_class="personal"))
    routes = {**before.table.routes, "support": secret}
    return replace(before, table=replace(before.table, routes=routes))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (throw_switch, (200, INCUMBENT)),
        (roll_back, (200, INCUMBENT)),
        (change_data_class, (503, "")),
    ],
)
async def test_the_next_request_on_the_same_head_sees_a_change_and_its_end(
    change: Callable[[Snapshot], Snapshot], expected: tuple[int, str], tmp_path: Path
) -> None:
    before = snapshot("http://up", weight_bps=ALL_BUT_ONE_BUCKET, fallback=True)
    models = (INCUMBENT, CANDIDATE, FALLBACK)
    door = Door(tmp_path, dict.fromkeys(models, completion()), first=before)

    async def answer() -> tuple[int, str]:
        door.asked.clear()
        status, _, _ = await door.call(CHAT, CALLER)
        return status, next(iter(door.asked), "")

    def serve(next_: Snapshot, etag: str) -> None:
        door.kept.put(replace(next_, etag=etag))
        assert door.holder.refresh()

    assert await answer() == await answer() == (200, CANDIDATE)
    serve(change(before), "changed")
    assert await answer() == await answer() == expected
    serve(before, "restored")
    assert await answer() == (200, CANDIDATE)


def take_keys_away(before: Snapshot) -> Snapshot:
    return replace(before, keys=())


@pytest.mark.parametrize(
    ("path", "change", "expected"),
    [
        (CHAT, take_keys_away, (401, "")),
        (FEEDBACK_PATH, take_keys_away, (401, "")),
        (CHAT, throw_switch, (200, INCUMBENT)),
    ],
)
async def test_a_request_follows_the_changes_that_come_before_its_bodys_last_byte(
    path: str,
    change: Callable[[Snapshot], Snapshot],
    expected: tuple[int, str],
    tmp_path: Path,
) -> None:
    before = snapshot("http://up", weight_bps=ALL_BUT_ONE_BUCKET, fallback=True)
    models = (INCUMBENT, CANDIDATE, FALLBACK)
    door = Door(tmp_path, dict.fromkeys(models, completion()), first=before)
    pieces = [CALLER[:9], CALLER[9:]]
    sent: list[Message] = []

    async def receive() -> Message:
        if len(pieces) == 1:
            door.kept.put(replace(change(before), etag="changed"))
            assert door.holder.refresh()
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [AUTH]}
    await door.app(scope, receive, send)

    assert (sent[0]["status"], next(iter(door.asked), "")) == expected


@pytest.mark.parametrize("weight_bps", [0, ALL_BUT_ONE_BUCKET])
async def test_changes_of_keys_and_switches_leave_no_earlier_routes_in_memory(
    weight_bps: int, tmp_path: Path
) -> None:
    before = snapshot("http://up", weight_bps=weight_bps, fallback=True)
    models = (INCUMBENT, CANDIDATE, FALLBACK)
    door = Door(tmp_path, dict.fromkeys(models, completion()), first=before)
    earlier: list[ReferenceType[CompiledRoute]] = []

    # These changes keep the number of the routing revision.
    for number in range(3):
        assert (await door.call(CHAT, CALLER))[0] == 200
        assert door.holder.current is not None
        earlier += map(ref, door.holder.current.routes.values())
        door.kept.put(replace(before, etag=f"change {number}"))
        assert door.holder.refresh()
    assert (await door.call(CHAT, CALLER))[0] == 200
    door.recorder.flush()
    gc.collect()

    assert [route() for route in earlier] == [None] * len(earlier)
