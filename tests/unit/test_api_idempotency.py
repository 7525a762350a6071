"""The memory behind `Idempotency-Key`."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.api.frame import idempotency
from harness.api.frame.idempotency import IdempotencyCache
from harness.api.frame.json_answers import JsonAnswer
from harness.domain.errors import Conflict, InputError
from tests.support.control.manual_clock import ManualClock

SCOPE = ("ann", "POST /proposals", "monday")


class Counter:
    """An effect that can be counted. hold: its first call waits for it."""

    def __init__(self, hold: threading.Event | None = None) -> None:
        self.calls, self.hold = 0, hold

    def __call__(self) -> JsonAnswer:
        self.calls += 1
        if self.hold is not None:
            self.hold.wait()
        return JsonAnswer({"call": self.calls}, status_code=201)


def test_of_many_at_once_one_acts_and_all_get_its_answer() -> None:
    remembered, hold = IdempotencyCache(ManualClock()), threading.Event()
    effect = Counter(hold)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(remembered.once, SCOPE, "{}", effect) for _ in range(8)]
        hold.set()
        bodies = {bytes(future.result().body) for future in waiting}
    assert effect.calls == 1
    assert bodies == {b'{"call": 1}'}


def test_a_failure_is_not_remembered() -> None:
    remembered, effect = IdempotencyCache(ManualClock()), Counter()

    def busy() -> JsonAnswer:
        raise Conflict("busy")

    with pytest.raises(Conflict):
        remembered.once(SCOPE, "{}", busy)
    assert remembered.once(SCOPE, "{}", effect).status_code == 201
    assert effect.calls == 1


def test_another_body_under_the_same_key_is_refused() -> None:
    remembered, effect = IdempotencyCache(ManualClock()), Counter()
    remembered.once(SCOPE, "{}", effect)
    with pytest.raises(InputError):
        remembered.once(SCOPE, '{"a":1}', effect)
    assert remembered.once(("ben", *SCOPE[1:]), '{"a":1}', effect).status_code == 201


def test_a_replayed_answer_is_the_same_and_says_that_it_is_one() -> None:
    remembered, effect = IdempotencyCache(ManualClock()), Counter()
    first = remembered.once(SCOPE, "{}", effect)
    again = remembered.once(SCOPE, "{}", effect)
    assert (again.status_code, again.body) == (first.status_code, first.body)
    assert again.headers["content-length"] == first.headers["content-length"]
    assert again.headers["idempotent-replayed"] == "true"


def test_a_day_later_it_is_a_new_request() -> None:
    clock = ManualClock()
    remembered, effect = IdempotencyCache(clock), Counter()
    remembered.once(SCOPE, "{}", effect)
    clock.advance(86_399)
    remembered.once(SCOPE, "{}", effect)
    assert effect.calls == 1
    clock.advance(1)
    remembered.once(SCOPE, "{}", effect)
    assert effect.calls == 2


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "ENTRIES", 3)
    remembered, effect = IdempotencyCache(ManualClock()), Counter()
    for number in range(5):
        remembered.once((str(number),), "{}", effect)
    assert len(remembered._entries) == 3
    remembered.once(("4",), "{}", effect)
    assert effect.calls == 5
