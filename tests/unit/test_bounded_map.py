"""The latest entries of a bounded map are there, and it holds few more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.recording.bounded_map import BoundedMap

pytestmark = pytest.mark.req("G6")


@given(keys=st.lists(st.integers(0, 60), max_size=300), least=st.integers(1, 40))
def test_it_keeps_the_latest_and_at_most_a_sixteenth_more(keys: list[int], least: int) -> None:
    kept: BoundedMap[int, int] = BoundedMap(least)
    for turn, key in enumerate(keys):
        kept.put(key, turn)
        assert kept.get(key) == turn
        assert len(kept) <= least + least // 16 + 1
    latest = list(dict.fromkeys(reversed(keys)))[:least]
    last = {key: turn for turn, key in enumerate(keys)}
    assert [kept.get(key) for key in latest] == [last[key] for key in latest]
    assert kept.get(-1) is None
