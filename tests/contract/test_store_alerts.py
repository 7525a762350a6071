from dataclasses import replace
from datetime import timedelta

import pytest

from harness.app.store.store import Store
from harness.frame.alerts.alert import Alert, AlertEvent, AlertKind
from harness.frame.alerts.alert_record import (
    Notified,
    mark_delivered,
    mark_failed,
    mark_notified,
    new_delivery,
)
from harness.frame.alerts.records import Alerts, Deliveries
from harness.routing.reliability.failover import Failover
from tests.support.store.records import NOW

pytestmark = pytest.mark.req("B9")

OPENED = Alert(
    kind=AlertKind.BREAKER_OPEN,
    subject="target sim/old-1",
    key="breaker_open:t_1",
    title="sim/old-1 is left alone",
    text="It timed out five times. sim/spare carries the load now.",
    at=NOW,
    source="w1",
)
PROMOTED = Alert(
    AlertKind.PROMOTED,
    "route triage",
    "promoted:ro_1",
    "promoted",
    "better",
    NOW,
    "control",
)
ROW = Failover(
    worker="w1",
    number=1,
    at=NOW,
    request="req_w1-1",
    route="triage",
    arm="incumbent",
    target="sim/old-1",
    provider="sim",
    failure="timeout",
    status=None,
    attempts=2,
    latency_ms=1500.5,
    endpoint="chat",
    stream=True,
    body_bytes=812,
    messages=3,
    tools=2,
    user_hash="a" * 32,
    next_target="sim/spare",
)


def later(seconds: float) -> Alert:
    return replace(OPENED, at=NOW + timedelta(seconds=seconds))


@pytest.mark.req("A6")
def test_the_same_alert_of_two_workers_is_one_record_that_the_last_one_ends(
    store: Store,
) -> None:
    other = replace(later(3), source="w2")
    with store.write() as tx:
        Alerts(tx).fold([OPENED, PROMOTED])
    with store.write() as tx:
        Alerts(tx).fold([other])
        Alerts(tx).fold([OPENED.now(AlertEvent.ENDED, NOW + timedelta(seconds=5))])
    with store.read() as tx:
        (record,) = Alerts(tx).list(open_only=True)
        assert (record.count, set(record.sources)) == (2, {"w2"})
        assert record.last_seen == other.at

    with store.write() as tx:
        Alerts(tx).fold([other.now(AlertEvent.ENDED, NOW + timedelta(seconds=9))])
    with store.read() as tx:
        assert Alerts(tx).list(open_only=True) == []
        newest, event = Alerts(tx).list()
        assert newest.resolved_at == NOW + timedelta(seconds=9)
        assert (event.key, event.resolved_at) == ("promoted:ro_1", NOW)


def test_a_delivery_waits_is_tried_again_and_is_over_once(store: Store) -> None:
    with store.write() as tx:
        Alerts(tx).fold([OPENED])
        record = mark_notified(Alerts(tx).list()[0], Notified.RAISED, NOW)
        Alerts(tx).save(record)
        first = new_delivery(record, Notified.RAISED, "chat", NOW)
        second = new_delivery(record, Notified.RAISED, "mail", NOW)
        Deliveries(tx).add(first)
        Deliveries(tx).add(second)
    with store.write() as tx:
        assert Deliveries(tx).due(NOW) == [first, second]
        assert Deliveries(tx).replace(first, mark_delivered(first, NOW))
        again = mark_failed(second, NOW, "connection refused", uniform=0.5)
        assert Deliveries(tx).replace(second, again)
        assert not Deliveries(tx).replace(second, again)
        assert Deliveries(tx).due(NOW) == []
    with store.read() as tx:
        assert Deliveries(tx).due(NOW + timedelta(minutes=1)) == [again]
        assert Deliveries(tx).for_alert(record.id) == [
            mark_delivered(first, NOW),
            again,
        ]


def test_a_sink_gets_the_end_of_an_alert_after_its_start(store: Store) -> None:
    with store.write() as tx:
        Alerts(tx).fold([OPENED])
        raised = mark_notified(Alerts(tx).list()[0], Notified.RAISED, NOW)
        resolved = mark_notified(raised, Notified.RESOLVED, NOW)
        Alerts(tx).save(resolved)
        start = new_delivery(raised, Notified.RAISED, "chat", NOW)
        end = new_delivery(resolved, Notified.RESOLVED, "chat", NOW)
        elsewhere = new_delivery(resolved, Notified.RESOLVED, "mail", NOW)
        for delivery in (start, end, elsewhere):
            Deliveries(tx).add(delivery)
    with store.write() as tx:
        assert Deliveries(tx).due(NOW) == [start, elsewhere]
        assert Deliveries(tx).replace(start, mark_delivered(start, NOW))
        assert Deliveries(tx).due(NOW) == [end, elsewhere]
