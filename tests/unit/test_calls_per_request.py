"""What a request costs in Python calls and coroutines: counted, so the same on every machine.

The limits stand in `tests/golden/calls_per_request.toml`, one table for each minor version of
Python. A figure that falls may be lowered there; one that rises needs its reason there.
"""

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Final, Self

from harness.domain.routing.table import Snapshot
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import EVENTS, ROLE, completion, event
from tests.support.router.asgi_router import ASK, CHAT, Door
from tests.support.router.live_router import snapshot

LIMITS: Final = Path(__file__).parents[1] / "golden" / "calls_per_request.toml"
UPSTREAM: Final = "http://up"
STREAMED: Final = ASK.replace(b"{", b'{"stream":true,', 1)
FEW_CHUNKS, MANY_CHUNKS = 2, 12
# Caches are filled by the first ones; the least of the rest is the request's own.
WARM_UP, MEASURED = 5, 10
STARTS_OR_AWAITS: Final = 0x80 | 0x200  # CO_COROUTINE, CO_ASYNC_GENERATOR
RESUME_OF_START: Final = 0


@dataclass(frozen=True)
class Cost:
    """calls: Python functions entered, coroutines resumed. coroutines: those started."""

    calls: int
    coroutines: int

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.calls + other.calls, self.coroutines + other.coroutines)

    def __mul__(self, times: int) -> "Cost":
        return Cost(self.calls * times, self.coroutines * times)


class CallCounter:
    """Counts as `sys.setprofile` tells of calls; those of C functions don't count."""

    def __init__(self) -> None:
        self.calls = self.coroutines = 0

    def __enter__(self) -> Self:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        self.calls -= 1  # this one

    def _note(self, frame: FrameType, happening: str, _: object) -> None:
        if happening != "call":
            return
        self.calls += 1
        code = frame.f_code
        if code.co_flags & STARTS_OR_AWAITS:
            # The argument of RESUME says whether a function starts or goes on after a wait.
            place = code.co_code[frame.f_lasti + 1]
            self.coroutines += place & 3 == RESUME_OF_START


async def cost(folder: Path, body: bytes, turn: ScriptedTurn, first: Snapshot) -> Cost:
    """Of one request through the router, from its ASGI door to its provider and back."""
    door = Door(folder, lambda _: turn, first=first)
    for _ in range(WARM_UP):
        status, _, _ = await door.call(CHAT, body)
        assert status == 200
    measured = []
    for _ in range(MEASURED):
        with CallCounter() as counter:
            await door.call(CHAT, body)
        measured.append((counter.calls, counter.coroutines))
    return Cost(*min(measured))


async def streamed(folder: Path, chunks: int) -> Cost:
    steps = ROLE, *[event({"content": "word"})] * chunks, event(finish="stop")
    turn = ScriptedTurn(headers=EVENTS, steps=(*steps, b"data: [DONE]\n\n"))
    return await cost(folder, STREAMED, turn, snapshot(UPSTREAM))


def limits(version: tuple[int, int]) -> Mapping[str, Mapping[str, object]]:
    """Those of this Python, or of the newest older one: later ones make fewer calls."""
    tables = tomllib.loads(LIMITS.read_text(encoding="utf-8"))
    minors = [int(name.partition(".")[2]) for name in tables]
    newest = max(minor for minor in minors if minor <= version[1])
    found: Mapping[str, Mapping[str, object]] = tables[f"3.{newest}"]
    return found


def limit_of(name: str) -> Cost:
    limit = limits(sys.version_info[:2])[name]
    assert str(limit["reason"]).strip(), f"{LIMITS.name}: why may {name} cost that?"
    return Cost(int(str(limit["calls"])), int(str(limit["coroutines"])))


def assert_within(name: str, counted: Cost, *, more: tuple[str, int] = ("", 0)) -> None:
    """more: another limit of the file, and how often it comes on top."""
    limit = limit_of(name)
    if more[1]:
        limit += limit_of(more[0]) * more[1]
    for field in fields(Cost):
        number, allowed = getattr(counted, field.name), getattr(limit, field.name)
        assert number <= allowed, (
            f"{name}: {number} {field.name}, {allowed} allowed by {LIMITS.name}. "
            "Spend less, or raise it there with a reason."
        )


async def test_a_plain_chat(tmp_path: Path) -> None:
    assert_within("plain", await cost(tmp_path, ASK, completion(), snapshot(UPSTREAM)))


async def test_a_chat_with_a_canary(tmp_path: Path) -> None:
    first = snapshot(UPSTREAM, weight_bps=10_000)
    assert_within("canary", await cost(tmp_path, ASK, completion(), first))


async def test_a_stream_and_each_of_its_chunks(tmp_path: Path) -> None:
    few = await streamed(tmp_path / "few", FEW_CHUNKS)
    many = await streamed(tmp_path / "many", MANY_CHUNKS)

    assert_within("stream", few)
    # Against the limit of the short stream, not its count: that may be a call below it by luck.
    assert_within("stream", many, more=("chunk", MANY_CHUNKS - FEW_CHUNKS))


async def test_a_call_and_a_coroutine_more_are_counted() -> None:
    async def answer() -> None: ...

    with CallCounter() as none:
        pass
    with CallCounter() as one:
        await answer()
    assert (one.calls - none.calls, one.coroutines - none.coroutines) == (1, 1)
