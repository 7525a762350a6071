from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from harness.app.store.store import Store
from harness.operations.records import Captures
from harness.routing.capture import CapturedRequest, CaptureResult
from harness.routing.shadow_pair import (
    CANDIDATE,
    STORING_TIME,
    CandidateAnswer,
    CandidateOutcome,
)
from tests.contract import test_store_observations as observations
from tests.support.control.manual_clock import ManualClock
from tests.support.site.signing_keys import CONTROL
from tests.support.store.records import NOW

pytestmark = pytest.mark.req("F8", "F9")

DUE = NOW + timedelta(minutes=10)
ASKED = CandidateAnswer("sim/new", DUE)
ENTERED = replace(observations.ONE, content={}, shadow="sh_1", candidate=ASKED)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def store(database_url: str, clock: ManualClock) -> Iterator[Store]:
    with closing(
        Store(database_url, secret=b"a secret", clock=clock, signatures=CONTROL)
    ) as opened:
        yield opened


def pair(number: int, **changed: object) -> CapturedRequest:
    """An entered pair of a caller of its own, which began `number` seconds after NOW."""
    at = NOW + timedelta(seconds=number)
    named = {"id": f"pair_{number}", "at": at, "caller": f"caller-{number}", **changed}
    return replace(ENTERED, **named)  # type: ignore[arg-type]


def answered(
    entered: CapturedRequest, outcome: CandidateOutcome = CandidateOutcome.ANSWERED
) -> CapturedRequest:
    has_answer = outcome is CandidateOutcome.ANSWERED
    more = {CANDIDATE: {"content": "no"}} if has_answer else {}
    content = {**observations.ONE.content, **more}
    answer = replace(ASKED, outcome=outcome, ms=12.0, output_tokens=3, cost_usd=0.5)
    return replace(entered, content=content, candidate=answer)


def put(store: Store, *pairs: CapturedRequest) -> Sequence[CaptureResult]:
    with store.write() as tx:
        return [Captures(tx).store_pair(each) for each in pairs]


def unjudged(store: Store, *judged: str, limit: int = 100) -> Sequence[CapturedRequest]:
    with store.read() as tx:
        return Captures(tx).pairs({"sh_1"}, judged=judged, limit=limit)


def test_a_pair_is_entered_before_its_answer_and_listed_with_it(
    store: Store, clock: ManualClock
) -> None:
    whole = answered(pair(1))
    assert put(store, pair(1)) == [CaptureResult.STORED]
    assert put(store, whole) == [CaptureResult.STORED]
    assert put(store, whole) == [CaptureResult.LATE]

    assert unjudged(store) == []
    clock.advance(1 + STORING_TIME.total_seconds())
    assert unjudged(store) == [whole]
    assert unjudged(store, "pair_1") == []


def test_pairs_come_in_the_order_in_which_they_began_however_long_an_answer_takes(
    store: Store, clock: ManualClock
) -> None:
    put(store, pair(2), pair(1), pair(3))
    put(store, answered(pair(3)), answered(pair(1), CandidateOutcome.FAILED))
    clock.advance(300)
    assert [each.id for each in unjudged(store)] == ["pair_1"]

    put(store, answered(pair(2)))
    assert [each.id for each in unjudged(store)] == ["pair_1", "pair_2", "pair_3"]
    assert [each.id for each in unjudged(store, "pair_1", limit=1)] == ["pair_2"]


def test_an_answer_that_never_came_is_lost_and_keeps_its_place(
    store: Store, clock: ManualClock
) -> None:
    put(store, pair(1), pair(2))
    put(store, answered(pair(2)))
    clock.advance(599)
    assert unjudged(store) == []
    clock.advance(1)
    lost, after = unjudged(store)
    assert lost.candidate
    assert (lost.id, lost.candidate.outcome) == ("pair_1", CandidateOutcome.LOST)
    assert after == answered(pair(2))

    # Later, its answer changes nothing: somebody may have judged the pair already.
    assert put(store, answered(pair(1))) == [CaptureResult.LATE]
    assert unjudged(store)[0] == lost


def test_each_caller_has_one_pair_and_each_conversation_without_a_caller(store: Store) -> None:
    nameless = {"caller": "", "conversation": "talk"}
    first = [pair(1), pair(2, **nameless), pair(3, caller="", conversation="")]
    assert put(store, *first) == [CaptureResult.STORED] * 3

    again = [
        pair(4, caller="caller-1", conversation="another"),
        pair(5, **nameless),
        pair(3, caller="", conversation=""),
    ]
    assert put(store, *again) == [CaptureResult.REPEATED] * 3
    others = [
        pair(6, caller="", conversation=""),
        pair(7, shadow="sh_2", caller="caller-1"),
    ]
    assert put(store, *others) == [CaptureResult.STORED] * 2


def test_a_deleted_pair_stays_deleted_when_its_answer_comes(store: Store) -> None:
    put(store, pair(1, user_hash="b" * 32))
    with store.write() as tx:
        assert len(Captures(tx).purge(users=["b" * 32])) == 1

    assert put(store, answered(pair(1))) == [CaptureResult.LATE]
    assert unjudged(store) == []


def test_pairs_expire_as_captures_do(store: Store, clock: ManualClock) -> None:
    put(store, pair(1, expires_at=NOW + timedelta(days=1)), pair(2))
    clock.advance(2 * 24 * 3600)
    with store.write() as tx:
        assert len(Captures(tx).forget(clock.now())) == 1
    assert [each.id for each in unjudged(store)] == ["pair_2"]


def test_pairs_are_no_part_of_the_sample(store: Store) -> None:
    put(store, pair(1), pair(2))
    sampled = replace(observations.ONE, id="cap_9")
    with store.write() as tx:
        captures = Captures(tx)
        assert captures.store(sampled, most_per_day=1) is CaptureResult.STORED
        assert captures.list() == [sampled]
        assert len(captures.sizes(since=NOW - timedelta(days=1))) == 1
        with pytest.raises(ValueError, match="no shadow pair"):
            captures.store_pair(sampled)
