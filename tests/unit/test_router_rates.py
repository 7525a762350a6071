"""Rates of keys: alone and shared by processes, the same to who asks."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from harness.domain.reliability.rate_limits import RateLimit, RateState
from harness.ports import RateBook
from router.access import rate_limits
from router.access.rate_limits import LocalRates, SharedRates, take_tokens

TEN = RateLimit(requests_per_min=10)
# Asks as often as it is told, at a standstill of the clock, and says how often it was let in.
ASKER = """
import sys, time
from pathlib import Path
from harness.domain.reliability.rate_limits import RateLimit
from router.access.rate_limits import SharedRates, take_tokens
book = SharedRates(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
limit, allowed = RateLimit(requests_per_min=100), 0
for _ in range(int(sys.argv[2])):
    allowed += take_tokens(book, "k", limit, 0, 1000.0).allowed
    time.sleep(0.001)
print(allowed)
"""
# Stops in the middle of a change, and stays there.
STUCK = """
import os, signal, sys
from pathlib import Path
from router.access.rate_limits import SharedRates
book = SharedRates(Path(sys.argv[1]))
def change(state):
    print("changing", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    return state
book.change("k", change)
"""


@pytest.fixture(params=["alone", "shared"])
def book(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RateBook]:
    made = LocalRates() if request.param == "alone" else SharedRates(tmp_path / "rates.book")
    with closing(made):
        yield made


def child(code: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-c", code, *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def at(number: int, _: RateState) -> RateState:
    return RateState(number, -number)


def test_each_key_has_a_state_of_its_own(book: RateBook) -> None:
    assert [take_tokens(book, "a", TEN, 0, 1000.0).allowed for _ in range(11)] == [
        True
    ] * 10 + [False]
    assert take_tokens(book, "b", TEN, 0, 1000.0).allowed
    assert take_tokens(book, "a", TEN, 0, 1006.1).allowed


def test_a_shared_book_is_read_without_being_one_of_its_users(tmp_path: Path) -> None:
    file = tmp_path / "rates.book"
    with pytest.raises(FileNotFoundError):
        rate_limits.read_rates(file, ["a"], since=0)
    with closing(SharedRates(file)) as book:
        for number in range(3000):
            book.change(f"key_{number}", partial(at, number))
        keys = [*(f"key_{number}" for number in range(0, 3000, 7)), "unknown"]
        found = rate_limits.read_rates(file, keys, since=0)
        assert found == {f"key_{n}": RateState(n, -n) for n in range(0, 3000, 7)}
        # Of a time before the machine was started: another clock.
        assert rate_limits.read_rates(file, keys, since=file.stat().st_mtime + 1) == {}
    with closing(SharedRates(file)) as book:
        assert book.change("key_1", lambda state: state) == RateState()


def test_with_no_place_left_a_key_is_counted_in_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "SLOTS", 4)
    monkeypatch.setattr(rate_limits, "PROBES", 4)
    with closing(SharedRates(tmp_path / "rates.book")) as book:
        for key in "abcdef":
            assert [take_tokens(book, key, TEN, 0, 9.0).allowed for _ in range(11)].count(
                True
            ) == 10


@pytest.mark.req("G5")
def test_a_disk_that_takes_nothing_costs_no_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(SharedRates(tmp_path / "rates.book")) as book:
        assert take_tokens(book, "a", TEN, 0, 1000.0).allowed
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            allowed = [take_tokens(book, "a", TEN, 0, 1000.0).allowed for _ in range(20)].count(
                True
            )
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)

    assert allowed == 10
    assert caplog.text.count("in this process alone") == 1


def test_processes_share_one_limit(tmp_path: Path) -> None:
    file = tmp_path / "rates.book"
    askers = [child(ASKER, file, 60) for _ in range(4)]
    for asker in askers:
        assert asker.stdout
        assert asker.stdout.readline() == "ready\n"
    allowed = sum(int(asker.communicate("go\n", timeout=60)[0]) for asker in askers)

    # A process that loses the processor in mid-change may cost a few updates. Each for itself
    # would let 240 through.
    assert 100 <= allowed <= 160

    alone = child(ASKER, file, 120)
    assert alone.stdout
    assert alone.stdout.readline() == "ready\n"
    assert alone.communicate("go\n", timeout=60)[0] == "100\n"


def test_a_process_that_stopped_in_the_middle_holds_up_nobody(tmp_path: Path) -> None:
    file = tmp_path / "rates.book"
    with closing(SharedRates(file)) as book:
        stuck = child(STUCK, file)
        try:
            assert stuck.stdout
            assert stuck.stdout.readline() == "changing\n"
            assert [take_tokens(book, "k", TEN, 0, 5.0).allowed for _ in range(11)].count(
                True
            ) == 10
        finally:
            os.kill(stuck.pid, signal.SIGKILL)
            stuck.communicate()


def test_who_comes_first_begins_anew_and_who_comes_later_does_not(tmp_path: Path) -> None:
    file = tmp_path / "rates.book"
    with closing(SharedRates(file)) as first, closing(SharedRates(file)) as second:
        first.change("k", lambda _: RateState(7.0))
        assert second.change("k", lambda state: state) == RateState(7.0)

    # As after a restart of the machine, whose clock begins at 0 again.
    with closing(SharedRates(file)) as later:
        assert later.change("k", lambda state: state) == RateState()
