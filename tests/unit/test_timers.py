import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest

from router.frame.limits import Timers
from tests.support.router.event_loops import on_both_loops


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
    with (
        pytest.raises(TimeoutError),
        timers.limit(in_s(0.02)),
        timers.limit(in_s(60)),
    ):
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
