from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from harness.gate.online.observation import TrafficMinute
from harness.routing.control.outage_rule import OutageKind, RouteOutage, find_outage
from harness.routing.table import Arm, Route

pytestmark = pytest.mark.req("B9")

NOON = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
ROUTE = Route("chat", 1, "own", fallbacks=("first", "second"))
DOWN = OutageKind.DOWN
ON_FALLBACK = OutageKind.ON_FALLBACK


def row(  # noqa: PLR0917 - counts, in the order of `TrafficMinute`
    minute: int,
    requests: int,
    failed: int = 0,
    charged: int = 0,
    target: str = "own",
    arm: Arm = Arm.INCUMBENT,
    refused: int = 0,
    unanswered: int = 0,
) -> TrafficMinute:
    """Builds a minute of traffic.

    Args:
        minute: after noon.
    """
    at = NOON + timedelta(minutes=minute)
    counts = requests, failed, charged
    return TrafficMinute(
        "chat",
        at,
        "w",
        arm.value,
        target,
        1,
        *counts,
        0,
        0,
        0,
        0.0,
        refused=refused,
        unanswered=unanswered,
    )


def outage(
    rows: Sequence[TrafficMinute],
    minutes: float,
    shut: Sequence[str] = (),
    known: OutageKind | None = None,
) -> RouteOutage | None:
    """Finds the outage of some minutes.

    Args:
        minutes: from noon to now.
    """
    times = {target: NOON - timedelta(minutes=9) for target in shut}
    return find_outage(ROUTE, rows, times, NOON + timedelta(minutes=minutes), known)


@pytest.mark.parametrize(
    ("rows", "minutes", "kind"),
    [
        ([], 0, None),
        ([row(0, 60)], 1, None),
        # One failed request of a quiet route, or two, say nothing.
        ([row(0, 1, 1, 1)], 1, None),
        ([row(0, 2, 2, 2)], 1, None),
        ([row(0, 3, 3, 3)], 1, DOWN),
        # A minute that is not over counts where all of its requests failed.
        ([row(0, 3, 3, 3)], 0.2, DOWN),
        ([row(0, 60, 30, 30)], 0.9, None),
        ([row(0, 60, 30, 30)], 1, DOWN),
        # Callers who leave without an answer are an outage if most of them do.
        ([row(0, 150, unanswered=150)], 0.2, DOWN),
        ([row(0, 60, unanswered=30)], 1, None),
        ([row(0, 60, unanswered=31)], 1, DOWN),
        ([row(0, 60, 1, 1, unanswered=30)], 1, DOWN),
        ([row(0, 4, unanswered=4)], 1, None),
        # More than one in a hundred.
        ([row(0, 300, 3, 3)], 1, None),
        ([row(0, 299, 3, 3)], 1, DOWN),
        # A quiet route's minutes are taken together.
        (
            [
                row(0, 1, 1, 1),
                row(2, 1, 1, 1),
                row(4, 1, 1, 1),
            ],
            5,
            DOWN,
        ),
        (
            [
                row(0, 1),
                row(2, 1, 1, 1),
                row(4, 1, 1, 1),
            ],
            5,
            None,
        ),
        # The newest whole minute decides.
        ([row(0, 60, 60, 60), row(1, 60)], 2, None),
        ([row(0, 60), row(1, 60, 60, 60)], 1.5, DOWN),
        ([row(0, 60, 60, 60)], 15, None),
        # A fallback answers more than half.
        ([row(0, 6, 0, 6, "first"), row(0, 5)], 1, ON_FALLBACK),
        ([row(0, 5, 0, 5, "first"), row(0, 5)], 1, None),
        ([row(0, 2, 0, 2, "first")], 1, None),
        ([row(0, 3, 0, 3, "first")], 0.1, ON_FALLBACK),
        # It is asked to keep it warm, or by a kill switch: nothing failed.
        ([row(0, 9, 0, 9, "first", Arm.KEEP_WARM)], 1, None),
        ([row(0, 9, 0, 0, "first")], 1, None),
        # The incumbent answers for a candidate that fails.
        ([row(0, 9, 0, 9, "own", Arm.CANARY)], 1, None),
        # Errors to callers count more than the fallback.
        ([row(0, 90, 0, 90, "first"), row(0, 10, 10, 10, "")], 1, DOWN),
    ],
)
def test_the_newest_minutes_tell_what_callers_meet(
    rows: list[TrafficMinute],
    minutes: float,
    kind: OutageKind | None,
) -> None:
    found = outage(rows, minutes)
    assert (found.kind if found else None) is kind


def test_an_outage_counts_since_its_first_minute_and_names_the_newest_fallback() -> None:
    rows = [
        row(0, 60),
        row(1, 60, 0, 60, "first"),
        row(2, 60, 0, 60, "second"),
        row(2, 10, 0, 10, "first"),
    ]
    assert outage(rows, 3) == RouteOutage(
        ON_FALLBACK,
        NOON + timedelta(minutes=1),
        130,
        0,
        130,
        fallback="second",
    )
    assert outage([*rows, row(3, 9, 9, 9, "second")], 3.5) == RouteOutage(
        DOWN, NOON + timedelta(minutes=3), 9, 9, 0, no_answers=True
    )


@pytest.mark.parametrize(
    ("rows", "minutes", "shut", "down"),
    [
        ([], 0, ["own", "first", "second"], True),
        ([], 0, ["own", "first"], False),
        # Requests tell more than circuits, while they come.
        ([row(0, 9)], 1.9, ["own", "first", "second"], False),
        ([row(0, 9)], 2, ["own", "first", "second"], True),
        # Some of this minute's requests came before; the circuits say what comes now.
        (
            [row(0, 9), row(0, 1, 1, 1, "")],
            0.5,
            ["own", "first", "second"],
            True,
        ),
        ([row(0, 9), row(0, 1, 1, 1, "")], 0.5, ["own", "first"], False),
    ],
)
def test_the_circuits_of_all_targets_tell_at_once_where_no_request_is_answered(
    rows: list[TrafficMinute],
    minutes: float,
    shut: list[str],
    *,
    down: bool,
) -> None:
    found = outage(rows, minutes, shut)
    assert (found is not None) is down
    if found is not None:
        assert (found.since, found.no_answers) == (
            NOON - timedelta(minutes=9),
            True,
        )


@pytest.mark.parametrize(
    ("rows", "minutes", "known", "kind"),
    [
        # A good minute ends an outage when routers have reported it completely.
        ([row(0, 60, 60, 60), row(1, 60)], 2, DOWN, DOWN),
        ([row(0, 60, 60, 60), row(1, 60)], 2.2, DOWN, None),
        # Two errors begin no outage, but show that the old one is not over.
        ([row(0, 60), row(1, 2, 2, 2)], 1.2, None, None),
        ([row(0, 60), row(1, 2, 2, 2)], 1.2, DOWN, DOWN),
        ([row(0, 600), row(1, 200, 2, 2)], 1.2, DOWN, None),
        (
            [row(0, 60), row(1, 2, 0, 2, "first")],
            1.2,
            ON_FALLBACK,
            ON_FALLBACK,
        ),
        (
            [
                row(0, 60),
                row(1, 5),
                row(1, 2, 0, 2, "first"),
            ],
            1.2,
            ON_FALLBACK,
            None,
        ),
        # Callers who get errors again are not on a fallback.
        ([row(0, 60, 0, 60, "first"), row(1, 2, 2, 2)], 1.2, DOWN, DOWN),
        ([row(0, 60), row(1, 9, 9, 9)], 1.2, ON_FALLBACK, DOWN),
        ([row(0, 60, 60, 60)], 15, DOWN, None),
    ],
)
def test_a_known_outage_ends_only_by_newest_minutes_that_do_not_show_it(
    rows: list[TrafficMinute],
    minutes: float,
    known: OutageKind | None,
    kind: OutageKind | None,
) -> None:
    found = outage(rows, minutes, known=known)
    assert (found.kind if found else None) is kind


@pytest.mark.req("B11")
def test_requests_that_no_target_was_called_for_are_no_silence_of_the_targets() -> None:
    refused = outage([row(0, 9, 9, refused=9)], 1)
    mixed = outage([row(0, 9, 9, 3, refused=6)], 1)
    assert refused is not None
    assert mixed is not None
    assert (refused.refused, refused.only_refused) == (9, True)
    assert (mixed.refused, mixed.only_refused) == (6, False)
