import asyncio
from collections.abc import Iterable
from contextlib import closing

import pytest

from harness.ports import QueuedJob
from harness.store import engine
from harness.store.postgres import job_queue


def take(url: str, count: int, *, providers: Iterable[str] = ()) -> list[str]:
    """The runs that one slot takes, in order, until it has so many."""
    taken: list[str] = []

    async def consume() -> None:
        ended = asyncio.Event()

        async def work(run: str) -> None:
            taken.append(run)
            if len(taken) == count:
                ended.set()

        await job_queue.consume(url, providers=list(providers), slots=1, work=work, ended=ended)

    asyncio.run(consume())
    return taken


@pytest.fixture
def queue_url(postgres_url: str) -> str:
    job_queue.install(postgres_url)
    job_queue.install(postgres_url)  # a second time changes nothing
    return postgres_url


def jobs(*runs: str, provider: str = "a") -> list[QueuedJob]:
    return [QueuedJob(run, provider, -place) for place, run in enumerate(runs)]


def test_workers_take_runs_in_the_order_last_given_and_only_those_of_their_providers(
    queue_url: str,
) -> None:
    with closing(job_queue.JobQueue(queue_url)) as queue:
        assert queue.replace(jobs("r1", "r2", "r3")) == ["r1", "r2", "r3"]
        added = queue.replace([*jobs("r4", "r3", "r1"), *jobs("other", provider="b")])
        assert added == ["r4", "other"]
        assert take(queue_url, 3, providers=["a"]) == ["r4", "r3", "r1"]
        assert take(queue_url, 1) == ["other"]
        # What has been taken is gone, and may be queued again.
        assert queue.replace(jobs("r1")) == ["r1"]


def test_a_run_is_taken_back_from_a_host_without_a_heartbeat_and_from_no_other(
    queue_url: str,
) -> None:
    with closing(job_queue.JobQueue(queue_url)) as queue:
        queue.replace(jobs("r1"))
        _change(queue_url, "SELECT procrastinate_register_worker_v1()")
        _change(queue_url, "SELECT procrastinate_fetch_job_v2(NULL, 1)")
        assert list(queue.take_back_dead()) == []
        age = job_queue.DEAD_AFTER_S + 5
        _change(
            queue_url,
            f"UPDATE procrastinate_workers SET last_heartbeat = now() - interval '{age} s'",  # noqa: S608 - a number
        )
        # Whoever has it may still be at work: nobody else gets it meanwhile.
        assert queue.replace(jobs("r1")) == []
        assert list(queue.take_back_dead()) == ["r1"]
        assert queue.replace(jobs("r1")) == ["r1"]


def _change(url: str, statement: str) -> None:
    made = engine.make(engine.parse(url))
    with made.begin() as db:
        db.exec_driver_sql(f"SET LOCAL search_path TO {job_queue.SCHEMA}")
        db.exec_driver_sql(statement)
    made.dispose()
