from dataclasses import replace
from pathlib import Path

import pytest

from harness.frame.alerts.alert import AlertEvent, AlertKind
from harness.frame.errors import SnapshotInvalid
from harness.routing.reliability.breaker import BreakerPolicy
from router.recording.port import FAILOVERS_PER_S, MAX_ALERTS, Recording
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import completion, error
from tests.support.router.asgi_router import Place
from tests.support.router.live_router import FALLBACK, INCUMBENT

OWN = f"up/{INCUMBENT}"
SPARE = f"up/{FALLBACK}"


def sent_alerts(place: Place) -> list[tuple[AlertKind, AlertEvent]]:
    place.recorder.flush()
    return [(alert.kind, alert.news) for alert in place.kept.alerts]


@pytest.mark.spine
@pytest.mark.req("A6", "B4")
async def test_failures_open_a_circuit_whose_alert_names_who_carries_the_load_until_it_closes(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path, {INCUMBENT: error(500), FALLBACK: completion()}, fallback=True)

    await place.ask()
    assert await place.state() == 0
    await place.ask(times=4)
    assert await place.state() == 2
    assert sent_alerts(place) == [(AlertKind.BREAKER_OPEN, AlertEvent.RAISED)]
    assert f"{SPARE} carries its load now" in place.kept.alerts[0].text
    asked = place.asked[INCUMBENT]
    await place.ask(times=3)
    assert place.asked[INCUMBENT] == asked

    place.clock.advance(BreakerPolicy().open_s)
    place.script[INCUMBENT] = completion()
    await place.ask()
    assert await place.state() == 1
    await place.ask(times=2)
    assert await place.state() == 0
    assert sent_alerts(place)[1:] == [(AlertKind.BREAKER_OPEN, AlertEvent.ENDED)]


@pytest.mark.req("A5", "B4")
async def test_a_long_pause_is_an_alert_until_it_is_over_and_shown_in_the_metrics(
    tmp_path: Path,
) -> None:
    used_up = {"retry-after": "7200", "x-ratelimit-remaining-requests": "0"}
    limited = replace(error(429), headers=used_up)
    place = Place(tmp_path, {INCUMBENT: limited, FALLBACK: completion()}, fallback=True)
    series = f'swapproof_target_pause_seconds{{target="{OWN}"}}'

    await place.ask(times=2)
    place.app._alerts.evaluate()
    assert sent_alerts(place) == [(AlertKind.BREAKER_OPEN, AlertEvent.RAISED)]
    assert "asked for a pause" in place.kept.alerts[0].title
    assert (await place.metrics())[series] == 7200

    place.clock.advance(7201)
    place.app._alerts.evaluate()
    assert sent_alerts(place)[1:] == [(AlertKind.BREAKER_OPEN, AlertEvent.ENDED)]
    assert series not in await place.metrics()


@pytest.mark.req("A5")
@pytest.mark.parametrize(
    ("turn", "kind", "subject"),
    [
        (error(401), AlertKind.OUR_KEY, "provider up"),
        (error(402), AlertKind.QUOTA, "provider up"),
        (
            error(404, code="model_not_found"),
            AlertKind.MODEL_UNKNOWN,
            f"target {OWN}",
        ),
    ],
)
async def test_what_is_ours_to_mend_is_told_once_and_not_per_request(
    tmp_path: Path,
    turn: ScriptedTurn,
    kind: AlertKind,
    subject: str,
) -> None:
    place = Place(tmp_path, {INCUMBENT: turn, FALLBACK: completion()}, fallback=True)

    await place.ask(times=5)

    assert sent_alerts(place) == [(kind, AlertEvent.RAISED)]
    assert place.kept.alerts[0].subject == subject


async def test_another_cause_takes_the_place_of_the_first(tmp_path: Path) -> None:
    place = Place(
        tmp_path,
        {INCUMBENT: error(401), FALLBACK: completion()},
        fallback=True,
    )
    await place.ask()
    place.script = {INCUMBENT: error(503), FALLBACK: completion()}
    place.clock.advance(121)
    await place.ask()

    assert sent_alerts(place) == [
        (AlertKind.OUR_KEY, AlertEvent.RAISED),
        (AlertKind.OUR_KEY, AlertEvent.ENDED),
        (AlertKind.BREAKER_OPEN, AlertEvent.RAISED),
    ]


async def test_what_goes_on_is_said_again_without_being_counted(tmp_path: Path) -> None:
    place = Place(tmp_path, {INCUMBENT: error(401)})
    await place.ask()

    place.app._alerts.still()
    # The successor of the worker may find it again: it ends by silence.
    place.app._alerts.close(is_replaced=True)

    assert sent_alerts(place) == [
        (AlertKind.OUR_KEY, AlertEvent.RAISED),
        (AlertKind.OUR_KEY, AlertEvent.STILL),
    ]
    assert "no other target is left" in place.kept.alerts[0].text


@pytest.mark.req("F1")
async def test_a_refused_revision_or_snapshot_on_disk_is_told_once(tmp_path: Path) -> None:
    place = Place(tmp_path, {INCUMBENT: completion()})
    alarms = place.app._alerts
    holder = place.holder
    holder.refused = str(SnapshotInvalid("route 'support' names a target that is not there"))
    alarms.evaluate()
    alarms.evaluate()
    holder.refused = ""
    alarms.evaluate()

    assert sent_alerts(place) == [
        (AlertKind.REVISION_REFUSED, AlertEvent.RAISED),
        (AlertKind.REVISION_REFUSED, AlertEvent.ENDED),
    ]
    assert "route 'support'" in place.kept.alerts[0].text

    place.holder.disk_refused = "a revoked key was taken away"
    alarms.evaluate()
    alarms.evaluate()
    assert sent_alerts(place)[2:] == [(AlertKind.REVISION_REFUSED, AlertEvent.RAISED)]


@pytest.mark.req("B5")
async def test_more_failovers_than_the_log_takes_are_counted(tmp_path: Path) -> None:
    place = Place(
        tmp_path,
        {INCUMBENT: error(401), FALLBACK: completion()},
        fallback=True,
    )

    await place.ask(times=FAILOVERS_PER_S + 3)
    place.clock.advance(1)
    await place.ask()
    place.recorder.flush()

    assert len(place.kept.failovers) == FAILOVERS_PER_S + 1
    assert (await place.metrics())["swapproof_router_failover_rows_dropped_total"] == 3


def test_alerts_that_wait_are_bounded_too(tmp_path: Path) -> None:
    place = Place(tmp_path, {INCUMBENT: completion()})
    recording = Recording("w", place.clock)
    alert = place.app._alerts._build_alert(AlertKind.BREAKER_OPEN, "target t", "t", "", "")

    recording.notify(*[alert] * (MAX_ALERTS + 2))

    assert len(recording._take_sums().alerts) == MAX_ALERTS
    assert recording.counters["alerts_dropped"] == 2
