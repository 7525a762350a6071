"""How a router learns ends from answers' headers, and tells clients (F11)."""

import asyncio
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from harness.providers.models.model_ends import (
    RENEW_AFTER,
    WITHDRAWN_AFTER,
    EndDates,
    EndSource,
    EndStatement,
    merge_answer,
)
from harness.providers.target import Target
from harness.routing.table import Arm
from router.health.answered_ends import SHARE_EVERY_S
from router.snapshot.end_headers import build_end_headers
from tests.support.control.manual_clock import ManualClock
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import completion, error
from tests.support.router.asgi_router import ASK, AUTH, CHAT, Place, Script
from tests.support.router.live_router import CANDIDATE, FALLBACK, INCUMBENT, QUICK

pytestmark = pytest.mark.req("F11")

SUNSET = "Wed, 30 Dec 2026 00:00:00 GMT"
DAY = date(2026, 12, 30)
SERVING = Target("up", INCUMBENT).id


def stating(turn: ScriptedTurn | None = None, **headers: str) -> ScriptedTurn:
    turn = turn or completion()
    return replace(turn, headers={**turn.headers, **headers})


def share(place: Place, after_s: float = SHARE_EVERY_S) -> None:
    """Lets the router mark its targets, and exchange statements with its database."""
    place.clock.advance(after_s)
    place.app._alerts.evaluate()
    place.holder.tell_followers()


def stated(place: Place, target: str = SERVING) -> EndDates | None:
    found = place.kept.end_statements.get((target, EndSource.HEADERS))
    return found.dates if found is not None and not found.is_withdrawn else None


@pytest.mark.spine
@pytest.mark.req("H6")
async def test_a_sunset_of_an_answer_reaches_the_database_and_then_clients(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path, {INCUMBENT: stating(sunset=SUNSET)})
    share(place)

    _, headers = await place.ask()
    assert b"sunset" not in headers  # the provider's own header does not pass

    share(place)
    assert stated(place) == EndDates(DAY)
    _, headers = await place.ask()
    assert headers[b"sunset"] == SUNSET.encode()
    assert headers[b"deprecation"] == b"@1798588800"


async def test_a_deprecation_without_a_sunset_leaves_the_end_unknown(tmp_path: Path) -> None:
    place = Place(tmp_path, {INCUMBENT: stating(deprecation="@1688169599")})
    share(place)
    await place.ask()
    share(place)

    assert stated(place) == EndDates(None, date(2023, 6, 30), is_deprecated=True)
    _, headers = await place.ask()
    assert headers[b"deprecation"] == b"@1688083200"
    assert b"sunset" not in headers


async def test_a_deprecation_without_a_day_gives_clients_no_header(tmp_path: Path) -> None:
    place = Place(tmp_path, {INCUMBENT: stating(deprecation="true")})
    share(place)
    await place.ask()
    share(place)

    assert stated(place) == EndDates(is_deprecated=True)
    _, headers = await place.ask()
    assert not headers.keys() & {b"deprecation", b"sunset"}


async def test_a_malformed_header_is_counted_and_changes_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path, {INCUMBENT: stating(sunset=SUNSET)})
    share(place)
    await place.ask()
    share(place)

    place.script = {INCUMBENT: stating(sunset="2026-01-01")}
    await place.ask()
    share(place)

    assert stated(place) == EndDates(DAY)
    metrics = await place.metrics()
    assert metrics["swapproof_router_end_headers_malformed_total"] == 1


async def test_a_caller_cannot_state_an_end(tmp_path: Path) -> None:
    place = Place(tmp_path, {INCUMBENT: completion()})
    share(place)
    forged = ((b"sunset", SUNSET.encode()), (b"deprecation", b"@1688169599"))
    await place.call(CHAT, ASK, headers=(AUTH, *forged))
    share(place)

    assert place.kept.end_statements == {}
    _, headers = await place.ask()
    assert not headers.keys() & {b"deprecation", b"sunset"}


async def test_an_error_answer_states_no_end(tmp_path: Path) -> None:
    refusal = stating(error(404), sunset=SUNSET)
    place = Place(tmp_path, {INCUMBENT: refusal, FALLBACK: completion()}, fallback=True)
    share(place)
    await place.ask()
    share(place)

    assert place.kept.end_statements == {}


async def test_a_fallbacks_end_is_stored_for_itself_and_is_not_the_routes(
    tmp_path: Path,
) -> None:
    place = Place(
        tmp_path,
        {INCUMBENT: error(500), FALLBACK: stating(sunset=SUNSET)},
        fallback=True,
    )
    share(place)
    await place.ask()
    share(place)

    assert stated(place, Target("up", FALLBACK).id) == EndDates(DAY)
    assert stated(place) is None
    place.script = {INCUMBENT: completion(), FALLBACK: completion()}
    _, headers = await place.ask()
    assert b"sunset" not in headers


async def test_the_header_speaks_of_the_incumbent_when_the_candidate_answers(
    tmp_path: Path,
) -> None:
    scripted: Script = {INCUMBENT: stating(sunset=SUNSET), CANDIDATE: completion()}
    place = Place(tmp_path, scripted, weight_bps=5_000)
    share(place)
    await place.ask(times=20)
    share(place)

    answers = [await place.ask() for _ in range(20)]
    arms = {headers[b"x-swapproof-arm"] for _, headers in answers}
    assert arms == {b"canary", b"incumbent"}
    assert {headers[b"sunset"] for _, headers in answers} == {SUNSET.encode()}


async def test_a_withdrawn_header_ends_after_a_day_of_answers_without_it(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path, {INCUMBENT: stating(sunset=SUNSET)})
    share(place)
    await place.ask()
    share(place)
    place.script = {INCUMBENT: completion()}

    await place.ask()
    share(place, 60.0)
    assert stated(place) == EndDates(DAY)  # one server of several may still lack it

    share(place, WITHDRAWN_AFTER.total_seconds())
    await place.ask()
    share(place)
    assert stated(place) is None
    _, headers = await place.ask()
    assert b"sunset" not in headers


async def test_without_answers_a_stated_end_stays(tmp_path: Path) -> None:
    place = Place(tmp_path, {INCUMBENT: stating(sunset=SUNSET)})
    share(place)
    await place.ask()
    share(place)
    share(place, timedelta(days=20).total_seconds())

    assert stated(place) == EndDates(DAY)


async def test_a_database_that_is_away_loses_no_statement_for_long(tmp_path: Path) -> None:
    place = Place(tmp_path, {INCUMBENT: stating(sunset=SUNSET)})
    share(place)
    await place.ask()
    place.kept.away = True
    place.clock.advance(SHARE_EVERY_S)
    with pytest.raises(Exception, match="away"):
        place.holder.tell_followers()
    place.kept.away = False

    share(place)
    assert stated(place) == EndDates(DAY)


def test_the_published_ends_of_the_control_plane_reach_clients_without_traffic(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path, {INCUMBENT: completion()})
    now = place.clock.now()
    statement = EndStatement(
        SERVING, EndSource.CATALOGUE, "litellm 1.106.2", EndDates(DAY), now, now
    )
    place.kept.end_statements[SERVING, EndSource.CATALOGUE] = statement
    before = place.holder.current
    share(place)

    serving = place.holder.current
    assert serving is not None
    assert serving is not before
    names = [name for name, _ in serving.routes["support"].headers[Arm.INCUMBENT]]
    assert names[-2:] == [b"deprecation", b"sunset"]

    share(place)
    assert place.holder.current is serving  # an unchanged end compiles nothing


def test_routes_without_an_end_have_no_further_header() -> None:
    assert build_end_headers([]) == ()


def test_a_deprecation_never_follows_the_sunset() -> None:
    now = ManualClock().now()
    late = EndDates(DAY, DAY + timedelta(days=10), is_deprecated=True)
    statement = EndStatement("t", EndSource.LIST, "a list", late, now, now)

    (_, deprecation), (_, sunset) = build_end_headers([statement])

    assert (deprecation, sunset) == (b"@1798588800", SUNSET.encode())


def test_an_unchanged_statement_is_stored_again_only_after_some_time() -> None:
    now = ManualClock().now()
    first = EndStatement("t", EndSource.HEADERS, "answers", EndDates(DAY), now, now)

    soon = replace(first, seen_at=now + timedelta(minutes=1))
    soon = replace(soon, checked_at=soon.seen_at)
    later = replace(first, seen_at=now + RENEW_AFTER, checked_at=now + RENEW_AFTER)
    changed = replace(soon, dates=EndDates(DAY + timedelta(days=1)))

    assert merge_answer(first, soon) is None
    assert merge_answer(first, later) == later
    assert merge_answer(first, changed) == changed
    absent = merge_answer(first, replace(soon, dates=EndDates()))
    assert absent == replace(first, checked_at=soon.checked_at)
    assert merge_answer(None, replace(soon, dates=EndDates())) is None


async def test_a_health_check_learns_the_end_of_a_fallback_without_traffic(
    tmp_path: Path,
) -> None:
    settings = replace(QUICK, health_check_interval_s=10.0)
    scripted: Script = {INCUMBENT: completion(), FALLBACK: stating(sunset=SUNSET)}
    place = Place(tmp_path, scripted, settings, fallback=True)
    share(place)

    place.clock.advance(11)
    place.app._alerts.evaluate()
    place.app._checks.run_due()
    await asyncio.gather(*place.app._checks._running.values())
    share(place)

    assert stated(place, Target("up", FALLBACK).id) == EndDates(DAY)
