import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from router.workers import parent as crews
from router.workers.parent import WorkerParent, WorkerPool, WorkerSpec
from tests.support.router.live_router import (
    SwitchableStore,
    parents_books,
    snapshot,
)

# argv: what to do, a folder to leave a mark in, then what every worker is given.
WORKER = """
import os, pathlib, signal, socket, sys, time
from router.recording.spool import encode_frame
told, folder = sys.argv[1], pathlib.Path(sys.argv[2])
if told == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
if told == "lingers":
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
(folder / str(os.getpid())).write_bytes(sys.stdin.buffer.read())
first = len(list(folder.iterdir())) == 1
if told == "never":
    sys.exit(7)
while told == "deaf":
    time.sleep(0.1)
if told == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
channel = socket.socket(fileno=int(sys.argv[sys.argv.index("--channel") + 1]))
channel.sendall(encode_frame({"ready": True}))
if told == "dies once" and first:
    sys.exit(9)
while True:
    time.sleep(0.1)
    if not (told == "hangs once" and first):
        channel.sendall(encode_frame({"metrics": []}))
"""


class Yard:
    def __init__(self, folder: Path) -> None:
        self.marks = folder / "marks"
        self.marks.mkdir()
        self.script = folder / "worker.py"
        self.script.write_text(WORKER, encoding="utf-8")
        store = SwitchableStore(snapshot("http://127.0.0.1:1/v1"))
        _, self.books = parents_books(folder, store)

    def crew(
        self,
        told: str,
        *,
        workers: int = 1,
        drain_s: float = 30.0,
    ) -> WorkerPool:
        return WorkerPool(
            self.orders(told, workers=workers, drain_s=drain_s),
            [],
            self.books,
        )

    def orders(
        self,
        told: str,
        *,
        workers: int = 1,
        drain_s: float = 30.0,
    ) -> WorkerSpec:
        return WorkerSpec(
            command=[
                sys.executable,
                str(self.script),
                told,
                str(self.marks),
            ],
            environment={**os.environ, "PYTHONPATH": str(Path.cwd())},
            given=b"the settings",
            workers=workers,
            drain_s=drain_s,
        )

    @property
    def began(self) -> list[Path]:
        return sorted(self.marks.iterdir())

    def lives(self, pid: str) -> bool:
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return False
        return True


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def play(made: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(600):
            await made()

    asyncio.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what a process does is no event of ours
        await asyncio.sleep(0.05)


@pytest.mark.req("G5")
@pytest.mark.parametrize("told", ["dies once", "hangs once"])
def test_a_worker_that_dies_or_hangs_is_replaced(
    yard: Yard,
    monkeypatch: pytest.MonkeyPatch,
    told: str,
) -> None:
    if told == "hangs once":
        monkeypatch.setattr(crews, "SILENT_S", 2.0)

    async def story() -> None:
        crew = yard.crew(told)
        assert await crew.start() == 0
        await until(lambda: len(yard.began) >= 2)
        await crew.retire()

    play(story)

    assert {path.read_bytes() for path in yard.began} == {b"the settings"}
    # On a busy machine one that works may seem to hang, too.
    restarts = yard.books.counters["worker_restarts"]
    assert restarts == 1 if told == "dies once" else restarts >= 1


def test_a_crew_whose_worker_ends_before_it_serves_tells_its_exit_code(yard: Yard) -> None:
    async def story() -> None:
        crew = yard.crew("never", workers=2)
        assert await crew.start() == 7
        await crew.retire()

    play(story)


def test_a_worker_that_does_not_end_is_killed_at_the_deadline(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crews, "STOP_TIMEOUT_S", 0.5)

    async def story() -> None:
        crew = yard.crew("stubborn", drain_s=0.5)
        assert await crew.start() == 0
        await crew.retire()

    play(story)


def test_a_command_that_cannot_be_run_is_a_failed_start(yard: Yard) -> None:
    async def story() -> None:
        crew = WorkerPool(WorkerSpec(["/nowhere/python"], {}, b"", 1, 1.0), [], yard.books)
        assert await crew.start() == 1
        await crew.retire()

    play(story)


@pytest.mark.req("G5")
def test_reloads_wait_while_two_crews_still_end_and_are_then_one(yard: Yard) -> None:
    read: list[int] = []

    def read_spec() -> WorkerSpec:
        read.append(len(read))
        return yard.orders("lingers")

    async def reloaded(times: int) -> None:
        await until(lambda: yard.books.counters["reloads"] == times)

    async def story() -> None:
        parent = asyncio.create_task(
            WorkerParent([], yard.books, read_spec).run(yard.orders("lingers"))
        )
        await until(lambda: len(yard.began) == 1)
        oldest = yard.began[0].name
        for count in (1, 2):
            os.kill(os.getpid(), signal.SIGHUP)
            await reloaded(count)
        with capture_logs() as said:
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: "reload_waits" in {event["event"] for event in said})
        os.kill(os.getpid(), signal.SIGHUP)
        assert (len(read), len(yard.began)) == (2, 3)

        os.kill(int(oldest), signal.SIGKILL)
        await reloaded(3)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await parent == 0

    play(story)

    assert len(read) == 3


@pytest.mark.req("G5")
def test_who_is_to_stop_while_a_reload_begins_stops_at_once(yard: Yard) -> None:
    async def story() -> None:
        parent = WorkerParent([], yard.books, lambda: yard.orders("deaf"))
        running = asyncio.create_task(parent.run(yard.orders("serve")))
        await until(lambda: len(yard.began) == 1)
        (old,) = (path.name for path in yard.began)
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: len(yard.began) == 2)
        (new,) = (path.name for path in yard.began if path.name != old)

        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: not yard.lives(old))

        assert yard.lives(new)
        os.kill(int(new), signal.SIGKILL)
        assert await running == 0

    play(story)
