import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.errors import InputError
from harness.frame.plain_data import short_hash
from harness.gate.online.guardrails import (
    Guardrail,
    MeasuredExposure,
    rank_block,
    scored_count,
)
from harness.gate.online.observation import (
    KEYS_PER_PAGE,
    PAGES,
    KeyClaim,
    KeyHistory,
    claim_keys,
    fingerprint,
    page_of,
)

pytestmark = pytest.mark.req("F3")

SEED = ("r-1", "w-1", 7)
values = st.builds(MeasuredExposure, st.booleans(), st.none() | st.floats(0, 1e6))


@given(measured=st.lists(values, max_size=60))
def test_ranks_lie_between_0_and_1_and_come_out_the_same_again(
    measured: list[MeasuredExposure],
) -> None:
    ranks = rank_block(
        measured,
        guardrail=Guardrail.LATENCY,
        tolerated=1.25,
        block=SEED,
    )
    canaries = sum(unit.canary for unit in measured)

    fewer, more = sorted((canaries, len(measured) - canaries))

    assert len(ranks.u) == scored_count(fewer, more)
    assert all(0.0 <= u <= 1.0 for u in ranks.u)
    assert ranks == rank_block(
        measured,
        guardrail=Guardrail.LATENCY,
        tolerated=1.25,
        block=SEED,
    )


def test_a_failed_unit_ranks_above_every_value_and_beside_other_failures() -> None:
    healthy = [MeasuredExposure(canary=False, value=9.0)] * 101
    failed = MeasuredExposure(canary=True, value=None)
    (u,) = rank_block(
        [*healthy, failed],
        guardrail=Guardrail.LATENCY,
        tolerated=1.25,
        block=SEED,
    ).u
    assert u == pytest.approx(0.9910771660)  # among 99 of the 101
    all_failed = [MeasuredExposure(canary=False, value=None)] * 99
    draws = [
        rank_block(
            [*all_failed, failed],
            guardrail=Guardrail.LATENCY,
            tolerated=1.25,
            block=("r-1", "w-1", number),
        ).u[0]
        for number in range(200)
    ]
    assert 0.4 < sum(draws) / 200 < 0.6


def test_where_the_canary_has_the_traffic_the_controls_are_ranked_and_slow_is_still_high() -> (
    None
):
    """As in a bake, where the old incumbent keeps 1 %."""

    def drawn(
        canary_s: float,
        tolerated: float,
        number: int,
    ) -> float:
        block = ("r-1", "w-1", number)
        units = [MeasuredExposure(canary=True, value=canary_s + n / 100) for n in range(99)]
        units.insert(number % 99, MeasuredExposure(canary=False, value=1.5))
        return rank_block(
            units,
            guardrail=Guardrail.LATENCY,
            tolerated=tolerated,
            block=block,
        ).u[0]

    assert all(drawn(2.0, 1.0, n) > 0.99 for n in range(20))
    assert all(drawn(0.1, 1.0, n) < 0.01 for n in range(20))
    alike = [drawn(0.52 + n % 100 / 100, 1.0, n) for n in range(400)]
    assert 0.4 < sum(alike) / 400 < 0.6
    assert all(drawn(2.0, 4.0, n) < 0.01 for n in range(20))


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_what_is_no_amount_is_refused(value: float) -> None:
    with pytest.raises(InputError, match="latency of a caller"):
        rank_block(
            [MeasuredExposure(canary=True, value=value)],
            guardrail=Guardrail.LATENCY,
            tolerated=1.0,
            block=SEED,
        )


NEW, BACK, COUNTED = KeyHistory
prints = st.integers(0, 2**44 - 1)


def claimed(
    pages: dict[int, bytes],
    period: int,
    *keys: int,
) -> list[KeyHistory]:
    changed, found = claim_keys(pages, KeyClaim("r", period, keys))
    pages.update(changed)
    return [*found]


@given(
    claims=st.lists(
        st.tuples(st.integers(1, 4), st.lists(prints, max_size=8)),
        max_size=8,
    )
)
def test_the_ledger_says_what_a_plain_memory_would(claims: list[tuple[int, list[int]]]) -> None:
    pages: dict[int, bytes] = {}
    last: dict[int, int] = {}
    for period, keys in claims:
        wanted = []
        for key in keys:
            before = last.get(key)
            if before is None:
                wanted.append(NEW)
            else:
                wanted.append(COUNTED if before >= period else BACK)
            last[key] = max(period, before or 0)
        assert claimed(pages, period, *keys) == wanted
        assert sum(map(len, pages.values())) == 6 * len(last)


def test_a_page_that_is_full_takes_no_more_and_its_keys_count_as_ones_that_came_back() -> None:
    pages: dict[int, bytes] = {}
    claimed(pages, 1, *range(KEYS_PER_PAGE))

    assert claimed(pages, 1, KEYS_PER_PAGE, 5) == [BACK, COUNTED]
    assert claimed(pages, 2, KEYS_PER_PAGE, 5) == [BACK, BACK]
    assert len(pages[0]) == 6 * KEYS_PER_PAGE


def test_bytes_that_nobody_here_wrote_are_no_error() -> None:
    assert claimed({0: b"\x00" * 7}, 2, 0, 1) == [BACK, NEW]


def test_a_period_beyond_all_bounds_still_counts_each_key_once() -> None:
    pages: dict[int, bytes] = {}
    assert claimed(pages, 10**9, 7) == [NEW]
    assert claimed(pages, 10**9, 7) == [COUNTED]


@given(key=st.text(max_size=20))
def test_a_key_has_one_fingerprint_whichever_process_takes_it(key: str) -> None:
    """Workers send a hash of it, and a router of one process has the key itself."""
    print_ = fingerprint("ledger_a", key)

    assert print_ == fingerprint("ledger_a", int.from_bytes(short_hash(key)))
    assert 0 <= page_of(print_) < PAGES


def test_two_rollouts_fingerprints_of_a_key_have_nothing_in_common() -> None:
    assert fingerprint("ledger_a", "ann") != fingerprint("ledger_b", "ann")
