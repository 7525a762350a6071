"""Callers who leave a target that sent nothing: what the router does for the others."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from harness.frame.alerts.alert import AlertKind
from harness.routing.reliability import latency
from router.observers import request_accounting
from router.upstream.transport import UpstreamRequest
from tests.support.providers.scripted_transport import ScriptedReply, ScriptedTurn
from tests.support.providers.scripted_upstream import completion
from tests.support.router.asgi_router import ASK, AUTH, CHAT, Place, Script
from tests.support.router.live_router import CANDIDATE, FALLBACK, INCUMBENT, OPTED_OUT_KEY

HANG = ScriptedTurn(hang=True)
STREAM = ASK[:-1] + b',"stream":true}'
OTHER_AUTH = (b"authorization", f"Bearer {OPTED_OUT_KEY}".encode())
STAYS_S = 0.05


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "LEAST_WAIT_S", 0.001)  # else each leave took a second
    monkeypatch.setattr(request_accounting, "LEAST_WAIT_S", 0.001)


async def leave(
    place: Place,
    caller: int,
    auth: tuple[bytes, bytes] = AUTH,
    body: bytes = ASK,
) -> None:
    """Sends a request, and disconnects after STAYS_S."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await asyncio.sleep(STAYS_S)
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None: ...

    sticky = (b"x-swapproof-sticky", b"leaver-%d" % caller)
    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [auth, sticky]}
    await place.app(scope, receive, send)


@pytest.mark.req("B3", "B4")
@pytest.mark.parametrize("body", [ASK, STREAM], ids=["plain", "stream"])
async def test_the_fifth_caller_who_leaves_sends_the_waiting_ones_to_the_fallback(
    tmp_path: Path, body: bytes
) -> None:
    script: Script = {INCUMBENT: HANG, FALLBACK: completion("spare")}
    place = Place(tmp_path, script, fallback=True)
    waiting = asyncio.ensure_future(place.call(CHAT, ASK))

    for caller in range(5):
        assert await place.state() == 0
        await leave(place, caller, body=body)

    status, headers, _ = await waiting
    assert (status, headers[b"x-swapproof-target"]) == (200, f"up/{FALLBACK}".encode())
    assert await place.state() == 2
    asked = place.asked[INCUMBENT]
    assert (await place.call(CHAT, ASK))[0] == 200
    assert place.asked[INCUMBENT] == asked


@pytest.mark.req("B3", "B4")
async def test_one_caller_who_leaves_again_and_again_opens_nothing(tmp_path: Path) -> None:
    script: Script = {INCUMBENT: HANG, FALLBACK: completion("spare")}
    place = Place(tmp_path, script, fallback=True)

    for _ in range(8):
        await leave(place, 1)

    assert await place.state() == 0


@pytest.mark.req("B3", "B4")
async def test_one_key_that_hangs_up_under_many_names_takes_no_target_from_other_keys(
    tmp_path: Path,
) -> None:
    script: Script = {INCUMBENT: completion("own"), FALLBACK: completion("spare")}
    place = Place(tmp_path, script, fallback=True)
    await place.call(CHAT, ASK, headers=(OTHER_AUTH,))
    place.script[INCUMBENT] = HANG

    for caller in range(30):
        await leave(place, caller)
    assert await place.state() == 0

    await leave(place, 31, OTHER_AUTH)
    assert await place.state() == 2


@pytest.mark.req("B3", "B4")
async def test_a_target_that_answers_in_between_keeps_its_requests(tmp_path: Path) -> None:
    script: Script = {INCUMBENT: HANG, FALLBACK: completion("spare")}
    place = Place(tmp_path, script, fallback=True)

    for caller in range(12):
        place.script[INCUMBENT] = HANG
        await leave(place, caller)
        if caller % 4 == 3:
            place.script[INCUMBENT] = completion("own")
            await place.call(CHAT, ASK)

    assert await place.state() == 0


@pytest.mark.req("B3", "B9")
async def test_the_only_target_gets_no_limit_and_its_lost_callers_are_counted(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path, {INCUMBENT: HANG})

    for caller in range(8):
        await leave(place, caller)

    assert await place.state() == 0
    place.app._alerts.evaluate()
    place.recorder.flush()
    assert [alert.kind for alert in place.kept.alerts] == [AlertKind.TARGET_SILENT]
    assert sum(minute.unanswered for minute in place.kept.traffic) == 8
    assert sum(minute.failed for minute in place.kept.traffic) == 0


@pytest.mark.req("A5", "B3")
@pytest.mark.parametrize("body", [ASK, STREAM], ids=["plain", "stream"])
async def test_a_fallback_is_asked_while_an_official_client_still_waits(
    tmp_path: Path, body: bytes
) -> None:
    asked = asyncio.Event()

    def hang() -> ScriptedTurn:
        asked.set()
        return HANG

    place = Place(tmp_path, {INCUMBENT: HANG, FALLBACK: hang}, fallback=True)
    patient = (AUTH, (b"x-stainless-read-timeout", b"0.3"))

    answer = asyncio.ensure_future(place.call(CHAT, body, headers=patient))
    async with asyncio.timeout(10):
        await asked.wait()
    # The last target has the request's whole time: the client leaves by itself.
    await asyncio.sleep(0.3)
    assert not answer.done()
    answer.cancel()
    await asyncio.gather(answer, return_exceptions=True)


@pytest.mark.req("A5", "B3")
@pytest.mark.parametrize("how", ["first byte", "rest"])
async def test_a_target_that_is_always_slow_keeps_its_usual_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    (body,) = completion("own").steps
    slow = ScriptedTurn(steps=(1.2, body)) if how == "rest" else completion("own")
    place = Place(tmp_path, {INCUMBENT: slow, FALLBACK: completion("spare")}, fallback=True)
    send = place.transport.send

    async def send_late(request: UpstreamRequest) -> ScriptedReply:
        await asyncio.sleep(1.2)
        return await send(request)

    if how == "first byte":
        monkeypatch.setattr(place.transport, "send", send_late)
    await asyncio.gather(*(place.call(CHAT, ASK) for _ in range(5)))

    # An equal share would be 1.15 s.
    patient = (AUTH, (b"x-stainless-timeout", b"2.55"))
    _, headers, _ = await place.call(CHAT, ASK, headers=patient)

    assert headers[b"x-swapproof-target"] == f"up/{INCUMBENT}".encode()


@pytest.mark.req("A6", "B4")
async def test_one_key_that_leaves_a_canary_does_not_open_its_circuit(tmp_path: Path) -> None:
    script: Script = {CANDIDATE: HANG, INCUMBENT: completion("own")}
    place = Place(tmp_path, script, weight_bps=10_000)
    await place.call(CHAT, ASK, headers=(OTHER_AUTH,))  # opted out of canaries
    assert place.asked == {INCUMBENT: 1}

    for caller in range(10):
        await leave(place, caller)

    assert place.asked[CANDIDATE] == 10
    assert await place.state(CANDIDATE) == 0


@pytest.mark.req("B3", "B10")
async def test_requests_that_end_with_the_worker_are_no_leaves(tmp_path: Path) -> None:
    script: Script = {INCUMBENT: HANG, FALLBACK: completion("spare")}
    place = Place(tmp_path, script, fallback=True)
    stickies = [(b"x-swapproof-sticky", b"%d" % caller) for caller in range(8)]
    asked = [asyncio.ensure_future(place.call(CHAT, ASK, headers=(AUTH, s))) for s in stickies]
    await asyncio.sleep(STAYS_S)

    for request in asked:
        request.cancel()
    await asyncio.gather(*asked, return_exceptions=True)

    assert place.asked[INCUMBENT] == 8
    assert await place.state() == 0
