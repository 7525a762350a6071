"""Which files a request passes, and what it leaves behind.

`python -m benchmarks.router.instructions` counts its Python calls beside their baseline.
"""

import gc
from pathlib import Path
from typing import Final

import pytest

from tests.support.router.costed_requests import (
    KINDS,
    files,
    garbage,
)
from tests.support.router.counted_router import CallCounter

# Watch a request only where a route's rollout, shadow, judge or capture, or tracing, wants it.
OBSERVERS: Final = frozenset(
    Path(f"router/{name}.py")
    for name in (
        "observers/canary_guard",
        "observers/capture",
        "observers/capture_head",
        "observers/guardrail_sampling",
        "observers/judge",
        "observers/request_tracing",
        "observers/shadow",
        "observers/shadow_pairs",
        "observers/side_calls",
        "observers/tracing",
        "recording/capture_writer",
        "request/guardrail_probe",
    )
)


@pytest.mark.req("B8")
@pytest.mark.parametrize("name", KINDS)
def test_a_request_leaves_nothing_for_the_garbage_collector(name: str, tmp_path: Path) -> None:
    # What the tests before left takes seconds to look at; the router is made after it.
    gc.collect()
    gc.freeze()
    assert not garbage(KINDS[name], tmp_path)


@pytest.mark.parametrize("name", ["plain", "stream", "messages"])
def test_observers_that_are_off_cost_a_request_no_call(name: str, tmp_path: Path) -> None:
    called = files(KINDS[name], tmp_path).keys()

    assert Path("router/observers/request_accounting.py") in called
    assert not OBSERVERS & called


def test_those_that_a_rollout_needs_are_called_with_one(tmp_path: Path) -> None:
    called = files(KINDS["guardrails"], tmp_path).keys()

    assert {
        Path("router/observers/canary_guard.py"),
        Path("router/request/guardrail_probe.py"),
    } <= called


async def test_a_call_and_a_coroutine_more_are_counted() -> None:
    async def answer() -> None: ...

    with CallCounter() as none:
        pass
    with CallCounter() as one:
        await answer()
    assert (one.calls - none.calls, one.coroutines - none.coroutines) == (1, 1)
