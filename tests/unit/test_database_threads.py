"""A database that hangs delays only the requests that need kept answers."""

import asyncio
import threading

import pytest

from router.server import kept_responses
from router.server.kept_responses import AT_ONCE, DatabaseThreads

pytestmark = pytest.mark.req("A2", "G4")


async def test_a_database_that_hangs_takes_no_thread_from_the_workers_other_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = threading.Event()
    begun: list[int] = []

    def hang() -> None:
        begun.append(1)
        answers.wait()

    threads = DatabaseThreads()
    with monkeypatch.context() as hurried:
        hurried.setattr(kept_responses, "DATABASE_S", 0.05)
        ended = await asyncio.gather(
            *(threads.run(hang) for _ in range(100)), return_exceptions=True
        )

    assert {type(one) for one in ended} == {TimeoutError}
    assert len(begun) == AT_ONCE
    assert await asyncio.to_thread(lambda: "other work") == "other work"

    answers.set()
    assert await threads.run(lambda: "an answer") == "an answer"
