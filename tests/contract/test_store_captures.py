from dataclasses import replace
from datetime import timedelta

import pytest

from harness.domain.errors import NotFound
from harness.domain.privacy.capture import CapturedRequest, CaptureResult
from harness.store.store import Store
from tests.support.store.records import NOW

pytestmark = pytest.mark.req("F9")

ONE = CapturedRequest(
    id="cap_1",
    at=NOW,
    expires_at=NOW + timedelta(days=30),
    route="triage",
    request="req_w1-1",
    endpoint="chat",
    stream=True,
    arm="incumbent",
    target="sim/old-1",
    revision=3,
    data_class="personal",
    user_hash="a" * 32,
    share_bps=100,
    rules="f" * 64,
    redactions={"email": 2},
    content={
        "messages": [{"role": "user", "content": "half a pair \ud83d, and \0"}],
        "answer": {"role": "assistant", "content": "yes", "finish_reason": "stop"},
    },
)


def another(number: int, **changed: object) -> CapturedRequest:
    return replace(ONE, id=f"cap_{number}", **changed)  # type: ignore[arg-type]


def add(store: Store, *new: CapturedRequest, most: int = 10) -> list[CaptureResult]:
    with store.write() as tx:
        return [tx.captures.store(request, most_per_day=most) for request in new]


def ids(store: Store, **asked: object) -> list[str]:
    with store.read() as tx:
        return [request.id for request in tx.captures.list(**asked)]  # type: ignore[arg-type]


def test_what_has_expired_is_deleted_and_nothing_else(store: Store) -> None:
    add(store, ONE, another(2, expires_at=NOW + timedelta(days=1)))

    with store.write() as tx:
        assert tx.captures.forget(NOW + timedelta(days=1)) == 1

    assert ids(store) == ["cap_1"]


def test_a_user_a_route_or_one_of_them_can_be_deleted(store: Store) -> None:
    twice = another(5, user_hash=f"{'d' * 32} {'c' * 32}")
    add(store, ONE, another(2, user_hash="b" * 32), another(3, route="chat"), another(4), twice)

    with store.write() as tx:
        assert tx.captures.purge(users=["b" * 32, "c" * 32]) == 2
        assert tx.captures.purge(route="chat", users=["b" * 32]) == 0
        assert tx.captures.purge(route="chat") == 1
        assert tx.captures.purge(id_="cap_4") == 1
    assert ids(store) == ["cap_1"]

    with store.write() as tx:
        assert tx.captures.purge() == 1
    with store.read() as tx, pytest.raises(NotFound, match="cap_1"):
        tx.captures.get("cap_1")


def test_one_comes_back_as_it_was_and_the_same_again_is_counted(store: Store) -> None:
    assert add(store, ONE) == [CaptureResult.STORED]
    with store.read() as tx:
        assert tx.captures.get("cap_1") == ONE

    assert add(store, replace(ONE, request="req_w1-2")) == [CaptureResult.REPEATED]
    with store.read() as tx:
        assert tx.captures.get("cap_1") == replace(ONE, seen=2)


def test_a_route_takes_no_more_than_it_may_in_a_day(store: Store) -> None:
    yesterday = another(5, at=NOW - timedelta(days=1))
    add(store, yesterday)

    kept = add(store, another(1), another(2), another(3), another(1), most=2)

    assert kept == [
        CaptureResult.STORED,
        CaptureResult.STORED,
        CaptureResult.FULL,
        CaptureResult.REPEATED,
    ]
    assert add(store, another(4, route="chat"), most=2) == [CaptureResult.STORED]
