import asyncio
import heapq
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from pathlib import Path

import pytest

from evals.runner.rate_gate import RateGate, RateGates
from evals.runner.shared_slots import Slots
from harness.evals.account_meter import AccountMeter, StoredLoads
from harness.frame.people.limits import EvalLimits, RateState
from harness.frame.runtime.clock import SystemClock
from harness.routing.reliability.latency import (
    FORGET_S,
    START_CALLS,
    CallSpeed,
    EndedCall,
    current_speed,
    note_answer,
    note_overload,
)
from router.access.rate_limits import LocalRates
from tests.support.store.sqlite_store import open_sqlite

HOLDER = """
import asyncio, sys
from pathlib import Path
from evals.runner.shared_slots import Slots

async def hold():
    async with Slots(Path(sys.argv[1]), lambda: 2).one():
        print("held", flush=True)
        await asyncio.sleep(600)

asyncio.run(hold())
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-c", HOLDER, folder], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


async def free(slots: Slots) -> int:
    async with AsyncExitStack() as stack:
        for count in range(100):
            try:
                async with asyncio.timeout(0.05):
                    slot = await slots._acquire()
            except TimeoutError:
                return count
            stack.callback(slots._release, slot)
    raise AssertionError("no end of slots")


def test_workers_share_a_providers_slots_and_a_killed_one_leaves_its_own(
    tmp_path: Path,
) -> None:
    async def counted() -> list[int]:
        with (
            closing(Slots(tmp_path, lambda: 2)) as slots,
            holder(tmp_path) as other,
        ):
            before = await free(slots)
            other.kill()
            other.wait()
            return [before, await free(slots)]

    assert asyncio.run(counted()) == [1, 2]


def test_slots_of_one_process_are_given_once_each_and_come_back(tmp_path: Path) -> None:
    most = 0

    async def call(slots: Slots, under_way: list[int]) -> None:
        nonlocal most
        async with slots.one():
            under_way.append(1)
            most = max(most, len(under_way))
            await asyncio.sleep(0)
            under_way.pop()

    async def calls() -> None:
        with (
            closing(Slots(tmp_path, lambda: 3)) as slots,
            closing(Slots(tmp_path, lambda: 3)) as others,
        ):
            under_way: list[int] = []
            both = [call(limit, under_way) for limit in (slots, others) for _ in range(20)]
            await asyncio.gather(*both)

    asyncio.run(calls())
    assert 1 < most <= 3


def pace_of(
    book: LocalRates,
    folder: Path,
    **limits: int,
) -> RateGate:
    return RateGates({"p": EvalLimits(**limits)}, book, folder).gate_for("p", "m")


# Shorter than each gate's pause here, longer than a busy machine's read of its state.
PATIENCE_S = 0.3


async def goes(
    pace: RateGate,
    size: int = 4,
    tokens: int | None = None,
) -> bool:
    try:
        async with asyncio.timeout(PATIENCE_S), pace.acquire(size) as turn:
            if tokens is not None:
                turn.answered(tokens)
            return True
    except TimeoutError:
        return False


def test_two_workers_share_one_rate(tmp_path: Path) -> None:
    book = LocalRates()
    one, two = (pace_of(book, tmp_path, requests_per_min=1) for _ in range(2))
    assert asyncio.run(goes(one))
    assert not asyncio.run(goes(two))


def test_tokens_that_the_provider_counted_are_what_the_next_one_waits_for(
    tmp_path: Path,
) -> None:
    book = LocalRates()
    assert asyncio.run(goes(pace_of(book, tmp_path, tokens_per_min=600), tokens=5))
    assert asyncio.run(goes(pace_of(book, tmp_path, tokens_per_min=600), tokens=5000))
    assert not asyncio.run(goes(pace_of(book, tmp_path, tokens_per_min=600)))


def test_a_pause_of_one_provider_holds_its_calls_and_no_others(tmp_path: Path) -> None:
    book = LocalRates()
    paces = RateGates({}, book, tmp_path)
    paces.gate_for("p", "m").hold(60)
    assert not asyncio.run(goes(paces.gate_for("p", "m")))
    assert asyncio.run(goes(paces.gate_for("q", "m")))


def test_a_shorter_pause_does_not_end_a_longer_one(tmp_path: Path) -> None:
    book = LocalRates()
    pace = RateGates({}, book, tmp_path).gate_for("p", "m")
    pace.hold(600)
    long: RateState = book.change("hold:p", lambda state: state)
    pace.hold(1)
    assert book.change("hold:p", lambda state: state) == long


def test_a_target_gets_two_calls_at_first_however_many_runs_ask_it(tmp_path: Path) -> None:
    paces = RateGates({}, LocalRates(), tmp_path)

    async def ask_all() -> list[bool]:
        async with (
            paces.gate_for("p", "m").acquire(1),
            paces.gate_for("p", "m").acquire(1),
        ):
            return [await goes(paces.gate_for("p", model)) for model in ("m", "other")]

    assert asyncio.run(ask_all()) == [False, True]


@pytest.mark.parametrize("name", ["a/b", "..", "a b"])
def test_any_name_of_a_provider_has_slots(tmp_path: Path, name: str) -> None:
    limits = {name: EvalLimits(max_concurrent=1)}
    with closing(
        RateGates(limits, LocalRates(), tmp_path / "evals").gate_for(name, name)
    ) as pace:
        assert asyncio.run(goes(pace))


CEILING = 16


def ask(latency_s: Callable[[int], float], calls: int = 1_000) -> list[int]:
    """Asks a server, whose latency follows from the calls under way, as fast as the speed
    allows; returns how many were under way as each call began.
    """
    speed = CallSpeed()
    now = 0.0
    seen = list[int]()
    ends = list[tuple[float, float, bool]]()
    while len(seen) < calls:
        while len(ends) < int(speed.calls):
            full = len(ends) + 1 >= int(speed.calls)
            heapq.heappush(ends, (now + latency_s(len(ends) + 1), now, full))
            seen.append(len(ends))
        now, began, full = heapq.heappop(ends)
        speed = note_answer(speed, EndedCall(began, now, full, tokens=20), CEILING)
    return seen


@pytest.mark.parametrize(
    ("latency_s", "least", "most"),
    [
        (lambda _: 1.0, CEILING, CEILING),  # as many as one likes
        (lambda calls: 1.0 * calls, 4, 5),  # each waits for all others
        (lambda calls: max(1.0, calls / 4), 8, 9),  # four slots and a queue
    ],
)
@pytest.mark.req("F2")
def test_calls_grow_until_an_answer_takes_twice_as_long(
    latency_s: Callable[[int], float],
    least: int,
    most: int,
) -> None:
    seen = ask(latency_s)
    assert seen[:2] == [1, 2]
    assert least <= max(seen) <= most
    assert min(seen[100:]) >= START_CALLS


@pytest.mark.req("F2")
def test_an_overload_halves_the_calls_once_for_all_that_were_under_way() -> None:
    speed = CallSpeed(calls=8.0, changed_at=100.0, used_at=100.0)
    for now in (110.0, 111.0, 112.0):
        speed = note_overload(speed, EndedCall(105.0, now, full=True))
    assert speed.calls == 4.0
    assert note_overload(speed, EndedCall(111.0, 113.0, full=True)).calls == 2.0


@pytest.mark.req("F2")
def test_calls_do_not_grow_where_fewer_than_allowed_are_asked() -> None:
    speed = CallSpeed(calls=8.0)
    for now in range(1, 100):
        speed = note_answer(speed, EndedCall(now - 1.0, float(now), full=False), CEILING)
    assert speed.calls == 8.0


@pytest.mark.parametrize("now", [FORGET_S + 101, 99.0])
@pytest.mark.req("F2")
def test_a_speed_is_forgotten_when_it_is_old_or_of_another_clock(now: float) -> None:
    speed = CallSpeed(calls=8.0, used_at=100.0)
    assert current_speed(speed, 101.0) == speed
    assert current_speed(speed, now).calls == START_CALLS


@pytest.mark.req("F2")
def test_a_call_gives_way_to_the_users_of_its_account_alone(tmp_path: Path) -> None:
    with closing(open_sqlite(tmp_path / "db", SystemClock(), secret=b"secret")) as store:
        stored = StoredLoads(store)
        router = AccountMeter(SystemClock(), "router")
        router.note_users("a", "p", 30.0, 0.0)
        router.note_answer("a", "p", "m", {"x-ratelimit-remaining-requests": "2"})
        router.refresh(stored)
        paces = RateGates(
            {}, LocalRates(), tmp_path, AccountMeter(SystemClock(), "worker"), stored
        )

        async def go(account: str) -> bool:
            with closing(paces.gate_for("p", account or "none", account)) as pace:
                return await goes(pace)

        assert [asyncio.run(go(account)) for account in ("a", "b", "")] == [False, True, True]


@pytest.mark.req("F2")
def test_calls_in_turn_leave_a_gap_for_users_over_all_workers(tmp_path: Path) -> None:
    with closing(open_sqlite(tmp_path / "db", SystemClock(), secret=b"secret")) as store:
        stored = StoredLoads(store)
        router = AccountMeter(SystemClock(), "router")
        router.note_users("a", "p", 30.0, 0.0)
        router.note_answer("a", "p", "m", {"x-ratelimit-remaining-requests": "30"})
        router.refresh(stored)
        book = LocalRates()

        async def go(worker: str) -> bool:
            meter = AccountMeter(SystemClock(), worker)
            paces = RateGates({}, book, tmp_path, meter, stored)
            with closing(paces.gate_for("p", worker, "a")) as pace:
                return await goes(pace)

        assert [asyncio.run(go(worker)) for worker in ("one", "two")] == [True, False]


@pytest.mark.req("F2")
def test_a_run_begins_with_one_call_until_its_first_answer(tmp_path: Path) -> None:
    with closing(open_sqlite(tmp_path / "db", SystemClock(), secret=b"secret")) as store:
        meter = AccountMeter(SystemClock(), "worker")
        paces = RateGates({}, LocalRates(), tmp_path, meter, StoredLoads(store))

        async def ask_all() -> list[bool]:
            with closing(paces.gate_for("p", "m", "a")) as pace:
                async with pace.acquire(1):
                    before = await goes(pace)
                    pace.note_headers({}, refused=False)
                async with pace.acquire(1):
                    return [before, await goes(pace)]

        assert asyncio.run(ask_all()) == [False, True]
