import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from router.frame.asgi import BODY
from router.frame.timers import Timers
from router.request.stream_relay import COMMENT
from tests.support.providers.scripted_transport import ScriptedCall, ScriptedEvent, ScriptedTurn
from tests.support.providers.scripted_upstream import DONE, EVENTS, ROLE, event
from tests.support.router.asgi_router import ASK, AUTH, CHAT, DirectCall, Door
from tests.support.router.event_loops import on_both_loops
from tests.support.router.live_router import QUICK, snapshot

STREAMED: Final = ASK.replace(b"{", b'{"stream":true,', 1)
WORDS: Final = tuple(event({"content": word}) for word in ("one", "two", "three", "four"))
STOP: Final = (event(finish="stop"), DONE)
STREAM: Final = ScriptedTurn(headers=EVENTS, steps=(ROLE, *WORDS, *STOP))


def door_to(turn: ScriptedTurn, folder: Path, *, direct: bool = True, **more: Any) -> Door:
    settings = replace(QUICK, **more)
    return Door(folder, lambda _: turn, settings, first=snapshot("http://up"), direct=direct)


class WatchedCall(DirectCall):
    """Keeps what is to happen when the client leaves, and the first piece's time."""

    def __init__(self, scope: Any, door: Door) -> None:
        self.leave: Callable[[], None] | None = None
        self.sent: list[Any] = []
        super().__init__(scope, door.app, self._nothing, self._send_on, self.sent)

    async def _nothing(self) -> Any:
        await asyncio.Event().wait()

    async def _send_on(self, message: Any) -> None:
        self.sent.append(message)

    def on_leaving(self, call: Callable[[], None] | None) -> None:
        self.leave = call


async def served(door: Door, kind: type[WatchedCall]) -> bytes:
    scope = {"method": "POST", "path": CHAT, "headers": [AUTH], "client": None}
    call = kind(scope, door)
    await call.serve(STREAMED)
    assert call.leave is None
    return b"".join(message.get("body", b"") for message in call.sent[1:])


@pytest.mark.req("B8")
@pytest.mark.parametrize("streams", [False, True])
async def test_a_client_that_leaves_ends_the_providers_work_and_is_counted(
    streams: bool,  # noqa: FBT001 - a parameter of the test
    tmp_path: Path,
) -> None:
    hanging = replace(STREAM, steps=(ROLE, *WORDS, ScriptedEvent.HANG))
    door = door_to(hanging if streams else ScriptedTurn(hang=True), tmp_path)
    scope = {"method": "POST", "path": CHAT, "headers": [AUTH], "client": None}
    call = WatchedCall(scope, door)

    assert door.app.serve_directly({**scope, BODY: STREAMED if streams else ASK}, call)
    async with asyncio.timeout(60):
        while streams and len(call.sent) < 1 + len(WORDS):  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)
    assert door.transport.open_replies == streams
    assert call.leave is not None
    call.leave()

    assert call.leave is None
    assert bool(call.sent) is streams
    assert door.transport.open_replies == 0
    assert door.recorder.counters["callers_gone"] == 1
    text = (await door.call("/metrics", method="GET"))[2].decode()
    assert 'outcome="cancelled",provider=' in text
    assert 'swapgate_attempts_total{failure_class="cancelled"' in text
    assert "swapgate_router_requests_under_way 0.0" in text


async def test_a_client_that_reads_slowly_is_waited_for_by_a_task(tmp_path: Path) -> None:
    tasks: list[object] = []

    class SlowCall(WatchedCall):
        """Has enough after the second piece."""

        def write(self, data: bytes, *, more: bool) -> None:
            super().write(data, more=more)
            self.full = len(self.sent) > 2

        def resume(self, app: Any) -> None:
            tasks.append(app)
            super().resume(app)

    body = await served(door_to(STREAM, tmp_path / "slow"), SlowCall)

    assert len(tasks) == 1
    general = door_to(STREAM, tmp_path / "general", direct=False)
    assert body == (await general.call(CHAT, STREAMED))[2]


@pytest.mark.parametrize("silent", ["before the first output", "between two events"])
async def test_a_silent_stream_gets_heartbeats(silent: str, tmp_path: Path) -> None:
    steps = (ROLE, *WORDS, *STOP)
    place = 0 if silent.startswith("before") else 3
    turn = replace(STREAM, steps=(*steps[:place], 0.5, *steps[place:]))
    general = door_to(STREAM, tmp_path / "general", direct=False)

    body = await served(door_to(turn, tmp_path / "silent", heartbeat_s=0.05), WatchedCall)

    assert COMMENT in body
    assert body.replace(COMMENT, b"") == (await general.call(CHAT, STREAMED))[2]


async def test_no_task_serves_a_stream_in_which_all_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[bytes] = []
    take = ScriptedCall.take

    def noting_take(call: ScriptedCall) -> bytes:
        taken.append(take(call))
        return taken[-1]

    monkeypatch.setattr(ScriptedCall, "take", noting_take)

    class TasklessCall(WatchedCall):
        def resume(self, app: Any) -> None:
            raise AssertionError(f"a task: {app}")

    body = await served(door_to(STREAM, tmp_path), TasklessCall)

    assert body.endswith(DONE)
    assert b"".join(taken) == b"".join((ROLE, *WORDS, *STOP))


@dataclass(eq=False)
class At:
    when: float
    due: Callable[[], None]


def in_s(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


@on_both_loops
async def test_time_that_is_up_is_a_timeout_and_the_task_goes_on() -> None:
    timers = Timers()

    for _ in range(3):
        with pytest.raises(TimeoutError), timers.limit(in_s(0.02)):
            await asyncio.sleep(60)

    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@on_both_loops
async def test_the_inner_limit_is_the_inner_blocks_alone() -> None:
    timers = Timers()

    with timers.limit(in_s(60)):
        with pytest.raises(TimeoutError), timers.limit(in_s(0.02)):
            await asyncio.sleep(60)
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError), timers.limit(in_s(0.02)), timers.limit(in_s(60)):
        await asyncio.sleep(60)


@pytest.mark.parametrize("limit_s", [60.0, 0.02])
@on_both_loops
async def test_a_task_that_another_cancels_is_cancelled_even_if_its_time_is_up(
    limit_s: float,
) -> None:
    timers = Timers()

    async def work() -> None:
        with timers.limit(in_s(limit_s)):
            await asyncio.sleep(60)

    def cancel() -> None:
        task.cancel()

    task = asyncio.create_task(work())
    # Both before the task runs again: they are due in the same look.
    timers.add(At(in_s(0.02), cancel))

    with pytest.raises(asyncio.CancelledError):
        await task


@on_both_loops
async def test_calls_are_made_once_each_when_they_are_due_unless_cancelled() -> None:
    timers = Timers()
    called: list[int] = []
    start = in_s(0)

    made = [At(start + n * 0.02, partial(called.append, n)) for n in range(5)]
    for at in made:
        timers.add(at)
    timers.discard(made[3])
    timers.discard(made[3])
    while len(called) < 4:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)
    timers.discard(made[0])

    assert called == [0, 1, 2, 4]
