"""`on_both_loops` runs a coroutine test on asyncio's event loop and on uvloop."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import pytest
import uvloop

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def on_both_loops(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Fixtures may be sync alone; one named `pool` is closed on the test's loop."""

    async def body(**given: Any) -> None:
        try:
            await test(**given)
        finally:
            if "pool" in given:
                await given["pool"].aclose()

    @pytest.mark.parametrize("loop_factory", LOOPS.values(), ids=LOOPS)
    @wraps(test)
    def run(loop_factory: Callable[[], asyncio.AbstractEventLoop], **given: Any) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(body(**given))

    own = inspect.signature(test)
    extra = inspect.Parameter("loop_factory", inspect.Parameter.KEYWORD_ONLY)
    made: Any = run
    made.__signature__ = own.replace(parameters=[*own.parameters.values(), extra])
    # Else pytest looks through to the coroutine.
    del made.__wrapped__
    chosen: Callable[..., None] = made
    return chosen
