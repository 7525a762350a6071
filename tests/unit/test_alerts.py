from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.alerts.alert import (
    ALERT_RULES,
    Alert,
    AlertEvent,
    AlertKind,
)
from harness.frame.alerts.alert_record import (
    FIRST_WAIT,
    MAX_WAIT,
    QUIET_PERIOD,
    REMIND_AFTER,
    SETTLING_TIME,
    AlertRecord,
    Notified,
    alert_message,
    apply_alert,
    apply_alerts,
    drop_silent_sources,
    due_message,
    find_alert_page,
    mark_notified,
    new_delivery,
    retry_wait,
)
from tests.support.store.records import NOW

OPENED = Alert(
    AlertKind.BREAKER_OPEN,
    "target a/b",
    "breaker_open:t",
    "t",
    "x",
    NOW,
    "w1",
)
DONE = Alert(
    AlertKind.ROLLED_BACK,
    "route chat",
    "rolled_back:r",
    "t",
    "x",
    NOW,
    "control",
)
steps = st.lists(
    st.tuples(
        st.sampled_from(AlertEvent),
        st.sampled_from(["w1", "w2"]),
        st.integers(0, 2000),
    ),
    max_size=40,
)


def after(*alerts: Alert) -> AlertRecord:
    (record,) = apply_alerts({}, alerts).values()
    return record


def at(minutes: float) -> Alert:
    return replace(OPENED, at=NOW + timedelta(minutes=minutes))


@pytest.mark.req("A6")
def test_the_same_key_within_the_window_is_counted_and_not_sent_again() -> None:
    record = after(OPENED)
    assert due_message(record, NOW) is Notified.RAISED
    record = mark_notified(record, Notified.RAISED, NOW)

    again = apply_alert(record, at(5))

    assert again is not None
    assert again.count == 2
    assert due_message(again, NOW + QUIET_PERIOD) is None
    assert due_message(again, NOW + REMIND_AFTER) is Notified.RAISED


LASTING = [kind for kind, rule in ALERT_RULES.items() if rule.lasting]


@pytest.mark.req("B9", "A6")
@pytest.mark.parametrize("kind", LASTING)
def test_a_cause_that_returns_after_its_end_was_told_is_told_at_once(kind: AlertKind) -> None:
    opened = replace(OPENED, kind=kind)
    record = mark_notified(after(opened), Notified.RAISED, NOW)
    ended_at = NOW + timedelta(minutes=1)
    over = apply_alert(record, opened.now(AlertEvent.ENDED, ended_at))
    assert over is not None
    settled = ended_at + SETTLING_TIME
    assert due_message(over, settled) is Notified.RESOLVED
    over = mark_notified(over, Notified.RESOLVED, settled)

    returned_at = settled + timedelta(seconds=1)
    back = apply_alert(over, replace(opened, at=returned_at))

    assert back is not None
    assert (back.id, back.open) == (record.id, True)
    assert due_message(back, returned_at) is Notified.RAISED


@pytest.mark.req("B9")
def test_the_end_of_a_cause_that_returned_is_told_after_it_stayed_away() -> None:
    opened = replace(OPENED, kind=AlertKind.ROUTE_DOWN)
    record = mark_notified(after(opened), Notified.RAISED, NOW)
    over = apply_alert(record, opened.now(AlertEvent.ENDED, NOW))
    assert over is not None
    back = apply_alert(mark_notified(over, Notified.RESOLVED, NOW), opened)
    assert back is not None
    back = mark_notified(back, Notified.RAISED, NOW)

    for minutes in (1, 5, 9):  # it flaps, and "raised" stays the last word
        moment = NOW + timedelta(minutes=minutes)
        ended = apply_alert(back, opened.now(AlertEvent.ENDED, moment))
        assert ended is not None
        assert due_message(ended, moment) is None
        again = apply_alert(ended, replace(opened, at=moment + timedelta(minutes=1)))
        assert again is not None
        assert due_message(again, moment + timedelta(minutes=1)) is None
        back = again
    last = NOW + timedelta(minutes=20)
    ended = apply_alert(back, opened.now(AlertEvent.ENDED, last))
    assert ended is not None
    assert due_message(ended, last + QUIET_PERIOD - timedelta(seconds=1)) is None
    assert due_message(ended, last + QUIET_PERIOD) is Notified.RESOLVED
    told = new_delivery(ended, Notified.RESOLVED, "chat", last + QUIET_PERIOD)
    assert told.text.endswith("Over since 2026-11-20 09:50 UTC.")


def test_a_restart_tells_nobody_anything_if_the_next_worker_sees_the_cause_too() -> None:
    record = mark_notified(after(OPENED), Notified.RAISED, NOW)
    waiting = drop_silent_sources(record, at(3.9).at, NOW)
    again = apply_alert(waiting, replace(at(3.9), source="w2"))
    assert again is not None
    later = drop_silent_sources(again, at(7).at, NOW)
    assert (set(later.sources), later.open) == ({"w2"}, True)
    assert [due_message(delivery, at(7).at) for delivery in (waiting, later)] == [None, None]


def test_no_alert_of_a_router_ends_by_silence_until_a_router_served_for_that_long() -> None:
    record = after(OPENED)
    assert drop_silent_sources(record, at(600).at, None) == record
    assert drop_silent_sources(record, at(603.9).at, at(600).at) == record
    assert not drop_silent_sources(record, at(604).at, at(600).at).open


def test_the_alert_of_another_process_ends_by_its_silence_alone() -> None:
    split = replace(OPENED, kind=AlertKind.SPLIT)
    assert drop_silent_sources(after(split), at(3.9).at, None).open
    assert not drop_silent_sources(after(split), at(4).at, None).open


def test_after_a_quiet_time_it_is_a_new_record() -> None:
    over = apply_alert(after(OPENED), OPENED.now(AlertEvent.ENDED, NOW))
    assert over is not None
    fresh = apply_alert(over, at(15))
    assert fresh is not None
    assert (fresh.id != over.id, fresh.count) == (True, 1)


def test_what_happened_is_told_once_and_is_over() -> None:
    record = after(DONE)
    assert (record.open, due_message(record, NOW)) == (
        False,
        Notified.RAISED,
    )
    assert due_message(mark_notified(record, Notified.RAISED, NOW), NOW + REMIND_AFTER) is None
    assert due_message(record, NOW + REMIND_AFTER) is None


def test_what_another_worker_notices_too_is_told_once() -> None:
    record = mark_notified(after(DONE), Notified.RAISED, NOW)
    for minutes in (1, 16, 600):
        at_ = NOW + timedelta(minutes=minutes)
        again = apply_alert(record, replace(DONE, at=at_, source="w2"))
        assert again is not None
        assert (again.id, due_message(again, at_ + QUIET_PERIOD)) == (
            record.id,
            None,
        )
        record = again


@given(steps)
def test_whatever_comes_people_know_the_state_in_the_end_and_are_not_flooded(
    moves: list[tuple[AlertEvent, str, int]],
) -> None:
    record: AlertRecord | None = None
    now = NOW
    messages = []
    for news, source, seconds in moves:
        now += timedelta(seconds=seconds)
        record = (
            apply_alert(
                record,
                replace(
                    OPENED,
                    source=source,
                    news=news,
                    at=now,
                ),
            )
            or record
        )
        if record is not None and (due := due_message(record, now)):
            record = mark_notified(record, due, now)
            messages.append((due, now))
        if record is not None and record.open:
            assert record.notified is Notified.RAISED  # "resolved" never stays the last word
    if record is None:
        return
    assert record.open == bool(record.sources)
    times = [when for _, when in messages]
    assert all(
        later - one >= QUIET_PERIOD for one, later in zip(times, times[4:], strict=False)
    )
    if due := due_message(record, now + QUIET_PERIOD):
        record = mark_notified(record, due, now + QUIET_PERIOD)
    if record.notified is not None:
        assert record.open == (record.notified is Notified.RAISED)


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_waits_grow_to_their_cap_and_never_to_nothing(attempts: int, uniform: float) -> None:
    found = retry_wait(attempts, uniform)
    assert FIRST_WAIT / 2 <= found <= MAX_WAIT
    assert found >= retry_wait(attempts, 0.0)
    assert retry_wait(attempts + 1, uniform) >= found


@pytest.mark.req("G4")
@pytest.mark.parametrize("kind", AlertKind)
def test_the_next_step_names_the_provider_that_the_alert_is_about(kind: AlertKind) -> None:
    step = Alert(kind, "provider groq", "k", "t", "x", NOW, "w1").next_step

    assert "PROVIDER" not in step
    assert ("groq" in step) is ("PROVIDER" in ALERT_RULES[kind].next_step)
    assert (
        Alert(kind, "route chat", "k", "t", "x", NOW, "w1").next_step
        == ALERT_RULES[kind].next_step
    )


@pytest.mark.parametrize(
    ("kind", "subject", "page"),
    [
        (AlertKind.AWAITING_APPROVAL, "route chat", "/compare?id=pr_1"),
        (AlertKind.ROLLED_BACK, "route chat", "/canary?route=chat"),
        (AlertKind.CANARY_HELD, "route a&b=c", "/canary?route=a%26b%3Dc"),
        (AlertKind.PROMOTED, "route chat", "/routes?route=chat"),
        (AlertKind.OUR_KEY, "provider openai", "/providers"),
        (AlertKind.JOB_FAILED, "job drift", "/alerts"),
    ],
)
@pytest.mark.req("B9")
def test_a_message_leads_to_the_page_where_one_decides(
    kind: AlertKind,
    subject: str,
    page: str,
) -> None:
    alert = Alert(kind, subject, f"{kind.value}:pr_1", "t", "x", NOW, "control")
    assert find_alert_page(alert) == page

    waiting = new_delivery(after(alert), Notified.RAISED, "chat", NOW)
    linked = alert_message(waiting, after(alert), dashboard_url="https://swapproof.example.com")
    assert linked.page == f"https://swapproof.example.com{page}"
    assert not alert_message(waiting, after(alert)).page
