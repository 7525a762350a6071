from dataclasses import replace
from datetime import date, timedelta, timezone

import pytest

from harness.app.store.store import Store
from harness.frame.errors import NotFound
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.frame.people.limits import KeySpend, SpendTotals, total_spend
from harness.frame.signing.audit_log import AuditLog
from harness.gate.online.guardrails import (
    ArmSplit,
    ErrorTally,
    FailureTally,
    FeedbackTally,
    Guardrail,
    JudgeTally,
    WindowTally,
)
from harness.gate.online.late_outcomes import FailedTurn, FailedTurns
from harness.gate.online.observation import (
    MOST_ASKED_NAMES,
    OTHER_NAMES,
    AskedName,
    KeyClaim,
    KeyHistory,
    NeverSeen,
)
from harness.operations.records import Captures
from harness.routing.capture import CapturedRequest, CaptureResult
from harness.routing.records.observations import Observations
from tests.support.control.manual_clock import ManualClock
from tests.support.store.records import BLOCK, NOW
from tests.support.store.tampering import written

NEVER_SEEN, RETURNED, COUNTED = KeyHistory


def test_blocks_are_numbered_in_order_of_arrival(store: Store) -> None:
    first = replace(BLOCK, sequence=7)
    second = replace(BLOCK, worker="w0", sequence=1)
    with store.write() as tx:
        Observations(tx).append([first], [])
    with store.write() as tx:
        Observations(tx).append([second, replace(BLOCK, rollout="ro_2")], [])

    with store.read() as tx:
        assert list(Observations(tx).blocks("ro_1")) == [
            replace(first, number=1),
            replace(second, number=2),
        ]
        assert [block.number for block in Observations(tx).blocks("ro_2")] == [1]
        assert [block.number for block in Observations(tx).blocks("ro_1", after=1)] == [2]
        assert not Observations(tx).blocks("ro_1", after=2)
        assert list(Observations(tx).blocks("ro_3")) == []


LOST = ArmSplit(1, 1)
WINDOWS = WindowTally(10, 1, 3, 1, LOST, ArmSplit(40, 3), ArmSplit(200, 9))
LATE: dict[str, object] = {
    **dict.fromkeys(("units", "canary_units", "failures", "canary_failures", "missing"), 0),
    "late_of": 1,
    "late_units": 100,
    "late_canary_units": 2,
    "never_seen": None,
}


def test_a_block_sent_twice_is_stored_once(store: Store) -> None:
    with store.write() as tx:
        Observations(tx).append([BLOCK, replace(BLOCK, failures=50)], [])
        Observations(tx).append([replace(BLOCK, units=200), replace(BLOCK, sequence=2)], [])

    with store.read() as tx:
        assert list(Observations(tx).blocks("ro_1")) == [
            replace(BLOCK, number=1),
            replace(BLOCK, number=2, sequence=2),
        ]


def test_blocks_come_back_with_all_that_they_counted(store: Store) -> None:
    classes = {"malformed": ArmSplit(1, 0), "timeout": ArmSplit(1, 1)}
    tally = {Guardrail.JSON_VALIDITY: FailureTally(20, 1, 1, 1)}
    told = [
        {"counts": {Guardrail.ERRORS: ErrorTally(100, 2, 3, 1, classes)}},
        {"counts": {Guardrail.FEEDBACK: FeedbackTally(10, 2, 3, 1, ArmSplit(4, 1))}},
        {"counts": {Guardrail.JUDGE: JudgeTally(10, 2, 3, 1, ArmSplit(1, 1), 0.25)}},
        {
            "period": 1,
            "counts": {},
            "ranks": {},
            "levels": {},
        },
        {"never_seen": NeverSeen(40, 1, 2, 1, tally, {Guardrail.LATENCY: (0.25,)})},
        {"never_seen": NeverSeen(0, 0, 0, 0, {}, {})},
        {"never_seen": NeverSeen(100, 2, 3, 1)},
        {"never_seen": None},
        {
            "outcomes": {
                "answered": ArmSplit(97, 1),
                "failed: provider": ArmSplit(3, 1),
            },
            "uncounted": {
                "not_sent: pause": ArmSplit(7, 5),
                "max_keys": ArmSplit(2, 0),
            },
            "bets": {Guardrail.LIMITS: (-0.1, 0.9)},
            "by_key": {"k_1": {Guardrail.LEAVING: FailureTally(20, 1, 2, 1)}},
            "served": {"vendor/new": ArmSplit(50, 1)},
            "waits": {"first_s": 4.0},
        },
        {
            "never_seen": NeverSeen(
                40,
                1,
                2,
                1,
                bets={Guardrail.LIMITS: (0.5,)},
                by_key={},
            )
        },
        {"windows_known_s": 720.0},
        LATE | {"counts": {Guardrail.CALLER_ERRORS: WINDOWS}},
        LATE | {"counts": {Guardrail.FEEDBACK: FeedbackTally(10, 2, 3, 1, LOST, LOST)}},
        LATE
        | {
            "counts": {Guardrail.CALLER_ERRORS: replace(WINDOWS, units=20)},
            "never_seen": NeverSeen(40, 1, 0, 0, {Guardrail.CALLER_ERRORS: WINDOWS}),
        },
    ]
    blocks = [
        replace(BLOCK, sequence=number, **fields)  # type: ignore[arg-type]  # its own fields
        for number, fields in enumerate(told, start=1)
    ]
    with store.write() as tx:
        Observations(tx).append(blocks, [])

    with store.read() as tx:
        assert list(Observations(tx).blocks("ro_1")) == [
            replace(block, number=number) for number, block in enumerate(blocks, start=1)
        ]


@pytest.mark.both_databases
def test_of_two_claims_of_a_key_in_a_period_the_first_has_it(store: Store) -> None:
    keys = [3, 2**44 - 1, 2**40]
    with store.write() as tx:
        assert [*Observations(tx).claim_keys(KeyClaim("ro_1", 1, keys))] == [NEVER_SEEN] * 3
    with store.write() as tx:
        claim = KeyClaim("ro_1", 1, [4, 3])
        assert [*Observations(tx).claim_keys(claim)] == [NEVER_SEEN, COUNTED]
        later = KeyClaim("ro_1", 2, [3, 5])
        assert [*Observations(tx).claim_keys(later)] == [
            RETURNED,
            NEVER_SEEN,
        ]
        assert [*Observations(tx).claim_keys(KeyClaim("ro_2", 1, [3]))] == [NEVER_SEEN]


@pytest.mark.both_databases
def test_each_router_reads_the_failures_of_all_routers_once(store: Store) -> None:
    old, new, other = (
        FailedTurn(number, at, canary=number == 1)
        for number, at in ((1, 1e9), (2**44 - 1, 1e9 + 700.5), (3, 1e9 + 701.0))
    )

    def exchange(*failed: FailedTurn, after: int = 0, since: float = 0.0) -> FailedTurns:
        with store.write() as tx:
            return Observations(tx).exchange_failures("ro_1", failed, after=after, since=since)

    assert exchange() == FailedTurns(0, [])
    assert exchange(old, new) == FailedTurns(1, [old, new])
    assert exchange(other, after=1) == FailedTurns(2, [other])
    assert exchange(after=2) == FailedTurns(2, [])
    assert exchange(since=1e9 + 700.9) == FailedTurns(2, [other])
    with store.write() as tx:
        assert Observations(tx).exchange_failures("ro_2", (), after=0, since=0.0).cursor == 0
        assert Observations(tx).forget_keys({"ro_2"}) == 2
    assert exchange() == FailedTurns(0, [])


def test_a_rollouts_keys_are_forgotten_with_it(store: Store) -> None:
    with store.write() as tx:
        for rollout in ("ro_1", "ro_2"):
            Observations(tx).claim_keys(KeyClaim(rollout, 1, [3, 2**40]))
    with store.write() as tx:
        assert Observations(tx).forget_keys({"ro_2"}) == 2
    with store.write() as tx:
        assert [*Observations(tx).claim_keys(KeyClaim("ro_1", 1, [3]))] == [NEVER_SEEN]
        assert [*Observations(tx).claim_keys(KeyClaim("ro_2", 1, [3]))] == [COUNTED]


def test_requests_without_a_route_add_up_by_day_and_fill_nothing(store: Store) -> None:
    day = NOW.date()
    many = [AskedName(f"m-{n}", day, "", 1) for n in range(MOST_ASKED_NAMES + 9)]
    odd = AskedName("x\0\ud800", day - timedelta(1), "", 2)
    for rows in (
        [AskedName("a", day, "", 3), odd],
        [AskedName("a", day, "", 4)],
        many,
    ):
        with store.write() as tx:
            Observations(tx).append([], [], asked_names=rows)

    with store.read() as tx:
        kept = Observations(tx).asked_names(since=day)
        assert len(Observations(tx).asked_names(since=day - timedelta(1))) == len(kept) + 1
    assert {row.name: row.requests for row in kept}["a"] == 7
    assert {row.name: row.requests for row in kept}[OTHER_NAMES] == 10
    assert len(kept) == MOST_ASKED_NAMES + 1
    with store.write() as tx:
        Observations(tx).forget_traffic(NOW + timedelta(1))
        assert not Observations(tx).asked_names(since=day - timedelta(1))


def test_what_keys_spent_this_month_is_summed_by_the_database(store: Store) -> None:
    today = date(2026, 3, 31)
    first = KeySpend("k_1", today, "w1", 2, 300, 0.25, 1)
    rows = [
        first,
        replace(first, worker="w2", cost_usd=0.5),
        replace(first, day=today.replace(day=1), cost_usd=4.0),
        replace(first, day=date(2026, 2, 28), cost_usd=100.0),
        replace(first, day=date(2026, 4, 1), cost_usd=100.0),
        replace(
            first,
            key="k_2",
            day=today.replace(day=2),
            unpriced=0,
        ),
        replace(first, key="k_3", day=date(2026, 2, 1)),
        replace(first, key="k_4"),
    ]
    with store.write() as tx:
        Observations(tx).append([], [], rows)

    asked = ["k_1", "k_2", "k_3", "k_5"]
    with store.read() as tx:
        spent = Observations(tx).spend_totals(today=today, keys=asked)
        assert spent == {
            "k_1": SpendTotals(today, 0.75, 4.75, 3),
            "k_2": SpendTotals(today, 0.0, 0.25, 0),
        }
        of_rows = {
            key: total_spend(
                Observations(tx).spends(since=date(2026, 1, 1), keys=[key]),
                today,
            )
            for key in asked
        }
        assert {key: spent.get(key, SpendTotals(today)) for key in asked} == of_rows
        assert Observations(tx).spend_totals(today=today, keys=()) == {}


def test_spend_of_a_day_that_is_none_hides_no_other(store: Store) -> None:
    good = KeySpend("k_1", date(2026, 3, 1), "w1", 2, 300, 0.25, 1)
    with store.write() as tx:
        Observations(tx).append([], [], [good])
    if isinstance(store, Store):
        with written(store) as db:
            db.exec_driver_sql(
                "INSERT INTO key_spend (key, day, worker, requests, tokens, cost_usd, unpriced)"
                " VALUES ('k_1', 'zzzz', 'w', 1, 1, 1, 0)"
            )

    with store.read() as tx:
        assert good in Observations(tx).spends(since=good.day)
        spent = Observations(tx).spend_totals(today=good.day, keys=["k_1"])
        assert spent == {"k_1": SpendTotals(good.day, 0.25, 0.25, 1)}


def append(
    store: Store,
    action: str,
    **details: object,
) -> None:
    with store.write() as tx:
        tx._clock = ManualClock(NOW)
        AuditLog(tx).append(SYSTEM, action, "route a", details)


@pytest.mark.both_databases
def test_an_audit_event_is_returned_as_it_will_be_read(store: Store) -> None:
    tokyo = NOW.astimezone(timezone(timedelta(hours=9)))
    details = {"tuple": (1, 2), "keys": {10: "ten", 9: "nine"}}
    with store.write() as tx:
        tx._clock = ManualClock(tokyo)
        actor = Actor("a\0b", Role.ADMIN, "pr_1", "key_1")
        event = AuditLog(tx).append(actor, "x", "y", details)

    with store.read() as tx:
        assert list(AuditLog(tx).all()) == [event]
        assert event.details == {
            "tuple": [1, 2],
            "keys": {"10": "ten", "9": "nine"},
        }
        assert (event.actor, event.principal, event.key) == (
            "a\u2400b",
            "pr_1",
            "key_1",
        )
        assert AuditLog(tx).first_break() is None


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
        "answer": {
            "role": "assistant",
            "content": "yes",
            "finish_reason": "stop",
        },
    },
)


def another(number: int, **changed: object) -> CapturedRequest:
    return replace(ONE, id=f"cap_{number}", **changed)  # type: ignore[arg-type]


def add(
    store: Store,
    *new: CapturedRequest,
    most: int = 10,
) -> list[CaptureResult]:
    with store.write() as tx:
        return [Captures(tx).store(request, most_per_day=most) for request in new]


def ids(store: Store, **asked: object) -> list[str]:
    with store.read() as tx:
        return [request.id for request in Captures(tx).list(**asked)]  # type: ignore[arg-type]


@pytest.mark.req("F9")
def test_what_has_expired_is_deleted_and_nothing_else(store: Store) -> None:
    add(store, ONE, another(2, expires_at=NOW + timedelta(days=1)))

    with store.write() as tx:
        assert len(Captures(tx).forget(NOW + timedelta(days=1))) == 1

    assert ids(store) == ["cap_1"]


@pytest.mark.req("F9")
def test_a_user_a_route_or_one_of_them_can_be_deleted(store: Store) -> None:
    twice = another(5, user_hash=f"{'d' * 32} {'c' * 32}")
    add(
        store,
        ONE,
        another(2, user_hash="b" * 32),
        another(3, route="chat"),
        another(4),
        twice,
    )

    with store.write() as tx:
        assert len(Captures(tx).purge(users=["b" * 32, "c" * 32])) == 2
        assert len(Captures(tx).purge(route="chat", users=["b" * 32])) == 0
        assert len(Captures(tx).purge(route="chat")) == 1
        assert len(Captures(tx).purge(id_="cap_4")) == 1
    assert ids(store) == ["cap_1"]

    with store.write() as tx:
        assert len(Captures(tx).purge()) == 1
    with store.read() as tx, pytest.raises(NotFound, match="cap_1"):
        Captures(tx).get("cap_1")


@pytest.mark.req("F9")
def test_one_comes_back_as_it_was_and_the_same_again_is_counted(store: Store) -> None:
    assert add(store, ONE) == [CaptureResult.STORED]
    with store.read() as tx:
        assert Captures(tx).get("cap_1") == ONE

    assert add(store, replace(ONE, request="req_w1-2")) == [CaptureResult.REPEATED]
    with store.read() as tx:
        assert Captures(tx).get("cap_1") == replace(ONE, seen=2)


@pytest.mark.req("F9")
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
