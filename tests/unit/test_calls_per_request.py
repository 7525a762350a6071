"""What a request costs in Python calls and coroutines: counted, so the same on every machine.

The budget stands in `tests/golden/calls_per_request.toml`, one table for each minor version of
Python. A figure that falls may be lowered there; one that rises by more than `TOLERANCE` needs
its reason there.
"""

import gc
import math
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from router.recording.reporter import Reporter
from tests.support.router.costed_requests import (
    FEW_CHUNKS,
    KINDS,
    MANY_CHUNKS,
    files,
    garbage,
    metered,
)
from tests.support.router.counted_router import CallCounter, RequestCost

ROOT: Final = Path(__file__).parents[2]
BUDGET: Final = ROOT / "tests" / "golden" / "calls_per_request.toml"
TOLERANCE: Final = 0.03
# Watch a request only where a route's rollout, shadow, judge or capture, or tracing, wants it.
OBSERVERS: Final = frozenset(
    Path(f"{name}.py")
    for name in (
        "observers/canary_guard",
        "observers/capture",
        "observers/guardrail_sampling",
        "observers/judge",
        "observers/request_tracing",
        "observers/shadow",
        "observers/side_calls",
        "observers/tracing",
        "recording/capture_writer",
        "request/guardrail_probe",
    )
)


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


def assert_within(
    name: str,
    counted: RequestCost,
    allowed: RequestCost,
) -> None:
    for field in ("calls", "coroutines"):
        number = getattr(counted, field)
        most = getattr(allowed, field)
        assert number <= math.floor(most * (1 + TOLERANCE)), (
            f"{name}: {number} {field}, {most} allowed by {BUDGET.name}. "
            "Spend less, or raise it there with a reason."
        )


def least_cost(
    name: str,
    allowed: RequestCost,
    folder: Path,
) -> RequestCost:
    cost = metered(KINDS[name], folder)
    if cost.calls > allowed.calls:
        # On a busy machine most requests may see what the worker does once a second.
        cost = min(cost, metered(KINDS[name], folder, times=200))
    return cost


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "apart",
        "limited",
        "canary",
        "guardrails",
        "embeddings",
        "messages",
    ],
)
def test_a_whole_answer(name: str, tmp_path: Path) -> None:
    allowed = budget_of(name)
    assert_within(name, least_cost(name, allowed, tmp_path), allowed)


@pytest.mark.req("B8")
@pytest.mark.parametrize("name", KINDS)
def test_a_request_leaves_nothing_for_the_garbage_collector(name: str, tmp_path: Path) -> None:
    # What the tests before left takes seconds to look at; the router is made after it.
    gc.collect()
    gc.freeze()
    assert not garbage(KINDS[name], tmp_path)


def test_a_stream_and_each_of_its_chunks(tmp_path: Path) -> None:
    few = budget_of("stream")
    chunk = budget_of("chunk")
    more = MANY_CHUNKS - FEW_CHUNKS
    many = RequestCost(
        few.calls + more * chunk.calls,
        few.coroutines + more * chunk.coroutines,
    )

    for name, allowed in (("stream", few), ("long_stream", many)):
        assert_within(name, least_cost(name, allowed, tmp_path / name), allowed)


@pytest.mark.parametrize("name", ["plain", "stream", "messages"])
def test_observers_that_are_off_cost_a_request_no_call(name: str, tmp_path: Path) -> None:
    called = files(KINDS[name], tmp_path).keys()

    assert Path("observers/request_accounting.py") in called
    assert not OBSERVERS & called


def test_a_chat_passes_few_files_and_the_page_about_the_code_names_each(tmp_path: Path) -> None:
    page = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
    called = files(KINDS["plain"], tmp_path).keys()

    assert len(called) <= 40
    assert [file for file in called if f"`router/{file}`" not in page] == []


def test_those_that_a_rollout_needs_are_called_with_one(tmp_path: Path) -> None:
    called = files(KINDS["guardrails"], tmp_path).keys()

    assert {
        Path("observers/canary_guard.py"),
        Path("request/guardrail_probe.py"),
    } <= called


def test_a_change_that_costs_five_percent_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Reporter.finish
    allowed = budget_of("plain")

    def costly_finish(reporter: Reporter, *given: Any) -> None:
        for _ in range(math.ceil(0.05 * allowed.calls)):
            _nothing()
        finish(reporter, *given)

    _nothing: Callable[[], None] = lambda: None  # noqa: E731 - one Python call
    monkeypatch.setattr(Reporter, "finish", costly_finish)

    with pytest.raises(AssertionError, match="Spend less"):
        assert_within("plain", metered(KINDS["plain"], tmp_path), allowed)


async def test_a_call_and_a_coroutine_more_are_counted() -> None:
    async def answer() -> None: ...

    with CallCounter() as none:
        pass
    with CallCounter() as one:
        await answer()
    assert (one.calls - none.calls, one.coroutines - none.coroutines) == (1, 1)
