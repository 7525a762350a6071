"""What a rollout's ledger of keys remembers, and what it tells (statistics.md §2.12)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.domain.canary.key_ledger import (
    KEYS_PER_PAGE,
    PAGES,
    KeyClaim,
    KeyHistory,
    claim_keys,
    fingerprint,
    page_of,
)
from harness.domain.content_hash import short_hash

pytestmark = pytest.mark.req("F3")
NEW, BACK, COUNTED = KeyHistory
prints = st.integers(0, 2**44 - 1)


def claimed(pages: dict[int, bytes], period: int, *keys: int) -> list[KeyHistory]:
    changed, found = claim_keys(pages, KeyClaim("r", period, keys))
    pages.update(changed)
    return [*found]


@given(claims=st.lists(st.tuples(st.integers(1, 4), st.lists(prints, max_size=8)), max_size=8))
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
