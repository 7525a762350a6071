"""What a request costs in Python calls and coroutines: counted, so the same on every machine.

The budget stands in `tests/golden/calls_per_request.toml`, one table for each minor version of
Python. A figure that falls may be lowered there; one that rises by more than `TOLERANCE` needs
its reason there.
"""

import math
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import pytest

from router.recording.served_names import ServedNames
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import EVENTS, ROLE, event
from tests.support.router.asgi_router import ASK, CHAT, Door
from tests.support.router.costed_requests import (
    FEW_CHUNKS,
    KINDS,
    MANY_CHUNKS,
    garbage,
    metered,
)
from tests.support.router.counted_router import CallCounter, RequestCost
from tests.support.router.live_router import snapshot

BUDGET: Final = Path(__file__).parents[1] / "golden" / "calls_per_request.toml"
TOLERANCE: Final = 0.03
STREAMED: Final = ASK.replace(b"{", b'{"stream":true,', 1)
# Caches are filled by the first ones; the least of the rest is the request's own.
WARM_UP, MEASURED, MOST = 5, 10, 200


def budget(version: tuple[int, int]) -> Mapping[str, Mapping[str, object]]:
    """That of this Python, or of the newest older one: later ones make fewer calls."""
    tables = tomllib.loads(BUDGET.read_text(encoding="utf-8"))
    minors = [int(name.partition(".")[2]) for name in tables]
    newest = max(minor for minor in minors if minor <= version[1])
    found: Mapping[str, Mapping[str, object]] = tables[f"3.{newest}"]
    return found


def budget_of(name: str) -> RequestCost:
    allowed = budget(sys.version_info[:2])[name]
    assert str(allowed["reason"]).strip(), f"{BUDGET.name}: why may {name} cost that?"
    return RequestCost(int(str(allowed["calls"])), int(str(allowed["coroutines"])))


def assert_within(name: str, counted: RequestCost, allowed: RequestCost) -> None:
    for field in ("calls", "coroutines"):
        number, most = getattr(counted, field), getattr(allowed, field)
        assert number <= math.floor(most * (1 + TOLERANCE)), (
            f"{name}: {number} {field}, {most} allowed by {BUDGET.name}. "
            "Spend less, or raise it there with a reason."
        )


@pytest.mark.parametrize(
    "name", ["plain", "limited", "canary", "guardrails", "embeddings", "messages"]
)
def test_a_whole_answer(name: str, tmp_path: Path) -> None:
    cost = metered(KINDS[name], tmp_path)
    if cost.calls > budget_of(name).calls:
        # On a busy machine a request takes so long that the worker's timers go off in most.
        cost = min(cost, metered(KINDS[name], tmp_path, times=MOST))
    assert_within(name, cost, budget_of(name))


@pytest.mark.req("B8")
@pytest.mark.parametrize("name", KINDS)
def test_a_request_leaves_nothing_for_the_garbage_collector(name: str, tmp_path: Path) -> None:
    assert not garbage(KINDS[name], tmp_path)


async def streamed(folder: Path, chunks: int, allowed: RequestCost) -> RequestCost:
    """From the ASGI door to a scripted provider: on sockets, how many turns of the loop a
    stream takes depends on how busy the machine is.
    """
    steps = ROLE, *[event({"content": "word"})] * chunks, event(finish="stop")
    turn = ScriptedTurn(headers=EVENTS, steps=(*steps, b"data: [DONE]\n\n"))
    door = Door(folder, lambda _: turn, first=snapshot("http://up"))
    counts: list[RequestCost] = []
    # On a busy machine a stream takes so long that timers go off in most.
    while len(counts) < WARM_UP + MEASURED or (
        len(counts) < MOST and min(counts[WARM_UP:]).calls > allowed.calls
    ):
        with CallCounter() as counter:
            status, _, _ = await door.call(CHAT, STREAMED)
        assert status == 200
        counts.append(RequestCost(counter.calls, counter.coroutines))
    return min(counts[WARM_UP:])


async def test_a_stream_and_each_of_its_chunks(tmp_path: Path) -> None:
    few, chunk = budget_of("stream"), budget_of("chunk")
    more = MANY_CHUNKS - FEW_CHUNKS
    many = RequestCost(few.calls + more * chunk.calls, few.coroutines + more * chunk.coroutines)

    assert_within("stream", await streamed(tmp_path / "few", FEW_CHUNKS, few), few)
    assert_within("chunk", await streamed(tmp_path / "many", MANY_CHUNKS, many), many)


def test_a_change_that_costs_five_percent_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note, allowed = ServedNames.note, budget_of("plain")

    def costly_note(names: ServedNames, target: str, model: str) -> None:
        for _ in range(math.ceil(0.05 * allowed.calls)):
            _nothing()
        note(names, target, model)

    _nothing: Callable[[], None] = lambda: None  # noqa: E731 - one Python call
    monkeypatch.setattr(ServedNames, "note", costly_note)

    with pytest.raises(AssertionError, match="Spend less"):
        assert_within("plain", metered(KINDS["plain"], tmp_path), allowed)


async def test_a_call_and_a_coroutine_more_are_counted() -> None:
    async def answer() -> None: ...

    with CallCounter() as none:
        pass
    with CallCounter() as one:
        await answer()
    assert (one.calls - none.calls, one.coroutines - none.coroutines) == (1, 1)
