from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from router.observers.request_accounting import OPEN
from router.recording.internal_errors import MAX_QUEUED_EVENTS
from router.recording.metrics import RouterMetrics
from router.recording.sums import CompletedRequest
from tests.support.providers.scripted_transport import ScriptedEvent
from tests.support.providers.scripted_upstream import (
    ROLE,
    broken_stream,
    completion,
    error,
    event,
    streamed,
)
from tests.support.router.asgi_router import ASK, AUTH, CHAT, Place
from tests.support.router.live_router import FALLBACK, INCUMBENT, switch_of

OWN = f"up/{INCUMBENT}"
SPARE = f"up/{FALLBACK}"


def events(place: Place) -> list[dict[str, Any]]:
    with capture_logs() as logged:
        place.app._events.drain()
    return [dict(entry) for entry in logged if entry["event"] == "failover"]


@pytest.mark.spine
@pytest.mark.req("B5", "B9")
async def test_requests_attempts_tokens_and_cost_are_counted_under_their_names(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path, {INCUMBENT: completion()}, fallback=True)
    await place.ask(times=2)
    place.script = {INCUMBENT: error(503), FALLBACK: completion()}
    await place.ask()
    place.script = {INCUMBENT: error(400), FALLBACK: error(500)}
    await place.ask()

    found = await place.metrics()

    requests = f'{{arm="incumbent",outcome="ok",provider="up",route="support",target="{OWN}"}}'
    own = f'provider="up",route="support",target="{OWN}"'
    attempts = 'swapproof_attempts_total{{failure_class="{}",provider="up",target="{}"}}'
    expected = {
        f"swapproof_requests_total{requests}": 2,
        attempts.format("none", OWN): 2,
        attempts.format("overloaded", OWN): 2,
        attempts.format("bad_request", OWN): 1,
        attempts.format("none", SPARE): 1,
        f'swapproof_tokens_total{{kind="input",target="{OWN}"}}': 14,
        f'swapproof_tokens_total{{kind="output",target="{SPARE}"}}': 5,
        f'swapproof_breaker_state{{target="{OWN}"}}': 0,
        f'swapproof_request_duration_seconds_count{{outcome="ok",{own}}}': 2,
        f'swapproof_request_duration_seconds_count{{outcome="client_error",{own}}}': 1,
        "swapproof_routing_revision": 3,
        "swapproof_observations_dropped_total": 0,
    }
    assert {name: found.get(name) for name in expected} == expected
    outcomes = {
        name.split('outcome="')[1].split('"')[0]
        for name in found
        if name.startswith("swapproof_requests_total")
    }
    assert outcomes == {"ok", "client_error"}
    assert found[f'swapproof_cost_dollars_total{{target="{OWN}"}}'] == pytest.approx(34e-6)
    left = f'failure_class="overloaded",provider="up",route="support",target="{OWN}"'
    assert found[f"swapproof_failovers_total{{{left}}}"] == 1
    assert 0 <= found["swapproof_snapshot_age_seconds"] < 60


@pytest.mark.req("B9")
async def test_a_request_that_failed_is_counted_under_the_last_target(tmp_path: Path) -> None:
    used_up = {"retry-after": "7200", "x-ratelimit-remaining-requests": "0"}
    limited = replace(error(429), headers=used_up)
    place = Place(tmp_path, {INCUMBENT: limited, FALLBACK: limited}, fallback=True)
    # The second finds both of them paused.
    await place.ask(times=2)

    found = await place.metrics()
    labels = f'outcome="failed",provider="up",route="support",target="{SPARE}"'
    assert found[f'swapproof_requests_total{{arm="incumbent",{labels}}}'] == 2
    assert found[f"swapproof_request_duration_seconds_count{{{labels}}}"] == 2


@pytest.mark.spine
@pytest.mark.req("B5")
async def test_the_failovers_of_one_user_show_one_hash_whatever_decides_the_arm(
    tmp_path: Path,
) -> None:
    place = Place(
        tmp_path,
        {INCUMBENT: error(503), FALLBACK: completion()},
        fallback=True,
    )
    for sticky in (b"first", b"second"):
        header = (b"x-swapproof-sticky", sticky)
        await place.call(CHAT, ASK[:-1] + b',"user":"alice"}', headers=(AUTH, header))

    first, second = (str(entry["user"]).split() for entry in events(place))
    assert first[0] == second[0]
    assert first[1] != second[1]


@pytest.mark.req("B9")
def test_a_request_for_which_no_target_was_asked_has_a_duration_alone() -> None:
    metrics = RouterMetrics(list)
    metrics.finished([CompletedRequest("support", "incumbent", outcome="client_error")] * 2)

    lines = metrics.text().decode().splitlines()
    kind = 'arm="incumbent",outcome="client_error",provider="",route="support",target=""'
    assert f"swapproof_requests_total{{{kind}}} 2.0" in lines
    named = {line.partition("{")[0] for line in lines if 'target=""' in line}
    duration = "swapproof_request_duration_seconds"
    assert named == {
        "swapproof_requests_total",
        *(f"{duration}_{part}" for part in ("bucket", "count", "sum")),
    }


@pytest.mark.req("B5", "B8")
async def test_a_streams_attempt_is_counted_at_its_end_and_its_first_token_once(
    tmp_path: Path,
) -> None:
    broken = broken_stream(ROLE, event({"content": "half"}), ScriptedEvent.RESET)
    answers = iter([streamed("whole"), broken])
    place = Place(tmp_path, {INCUMBENT: lambda: next(answers)})

    await place.ask(ASK[:-1] + b',"stream":true}', times=2)

    found = await place.metrics()
    target = f'target="{OWN}"'
    failed, answered = (f'failure_class="{name}",provider="up"' for name in ("connect", "none"))
    assert found[f"swapproof_attempts_total{{{failed},{target}}}"] == 1
    assert found[f"swapproof_attempts_total{{{answered},{target}}}"] == 1
    labels = f'provider="up",route="support",{target}'
    first = f"swapproof_time_to_first_token_seconds_count{{{labels}}}"
    assert found[first] == 2


@pytest.mark.req("B5", "B4")
async def test_a_target_passed_over_as_open_is_logged_as_such(tmp_path: Path) -> None:
    place = Place(
        tmp_path,
        {INCUMBENT: error(401), FALLBACK: completion()},
        fallback=True,
    )

    await place.ask(times=2)

    logged = events(place)
    assert [entry["failure_class"] for entry in logged] == ["our_key", OPEN]
    assert [entry["attempts"] for entry in logged] == [1, 0]


@pytest.mark.req("B5")
@pytest.mark.parametrize("turn", [completion(), error(400)])
async def test_a_request_that_left_no_target_is_not_in_the_log(
    tmp_path: Path, turn: Any
) -> None:
    place = Place(tmp_path, {INCUMBENT: turn, FALLBACK: completion()}, fallback=True)

    await place.ask(times=3)

    assert events(place) == []


@pytest.mark.req("B5")
async def test_a_log_that_nobody_writes_drops_events_and_counts_them(tmp_path: Path) -> None:
    place = Place(
        tmp_path,
        {INCUMBENT: error(401), FALLBACK: completion()},
        fallback=True,
    )

    for _ in range(MAX_QUEUED_EVENTS):
        place.app._events.put("filler")
    await place.ask(times=3)

    assert (await place.metrics())["swapproof_router_log_events_dropped_total"] >= 3


@pytest.mark.req("B9", "B11")
async def test_a_request_that_a_switch_refuses_is_no_failure_of_the_provider_it_excludes(
    tmp_path: Path,
) -> None:
    used_up = {"retry-after": "7200", "x-ratelimit-remaining-requests": "0"}
    limited = replace(error(429), headers=used_up)
    place = Place(tmp_path, {INCUMBENT: limited, FALLBACK: completion()}, fallback=True)
    forced = switch_of(f"target:{OWN}")
    place.kept.put(replace(place.kept.snapshot(), etag="2", switches=(forced,)))
    assert place.holder.refresh()
    # The first request pauses the forced target. The router calls no target for the others.
    await place.ask(times=3)

    found = await place.metrics()
    requests = {
        name: value
        for name, value in found.items()
        if name.startswith("swapproof_requests_total") and value
    }
    failed = f'outcome="failed",provider="up",route="support",target="{OWN}"'
    refused = 'outcome="refused",provider="",route="support",target=""'
    assert requests == {
        f'swapproof_requests_total{{arm="incumbent",{failed}}}': 1,
        f'swapproof_requests_total{{arm="incumbent",{refused}}}': 2,
    }
    place.recorder.flush()
    (minute,) = place.kept.traffic
    assert (
        minute.requests,
        minute.failed,
        minute.refused,
        minute.charged,
    ) == (3, 3, 2, 1)


@pytest.mark.req("B9", "E5", "D8")
async def test_a_request_that_no_target_may_get_is_no_failure_of_a_provider(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path, {})
    place.holder._keys_of = lambda _: {"up": ()}
    place.kept.put(replace(place.kept.snapshot(), etag="2"))
    assert place.holder.refresh()
    await place.ask()

    refused = 'outcome="refused",provider="",route="support",target=""'
    found = await place.metrics()
    assert found[f'swapproof_requests_total{{arm="incumbent",{refused}}}'] == 1
    place.recorder.flush()
    (minute,) = place.kept.traffic
    assert (minute.failed, minute.refused, minute.charged) == (1, 1, 0)
