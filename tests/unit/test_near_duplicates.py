"""Texts that are nearly the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.domain.privacy.capture import find_near_duplicates, jaccard_similarity, shingles

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=12).map(" ".join)


@pytest.mark.req("F9")
@given(texts=st.lists(WORDS, max_size=14), threshold=st.sampled_from([0.3, 0.5, 0.8, 0.9, 1.0]))
def test_the_quick_way_finds_what_comparing_all_with_all_does(
    texts: list[str], threshold: float
) -> None:
    named = {str(number): text for number, text in enumerate(texts)}
    kept: list[str] = []
    expected: set[str] = set()
    for id_, text in named.items():
        mine = shingles(text)
        if any(jaccard_similarity(mine, shingles(named[name])) >= threshold for name in kept):
            expected.add(id_)
        else:
            kept.append(id_)

    near_duplicates = find_near_duplicates(named, threshold=threshold)

    assert set(near_duplicates) == expected
    assert all(
        kept_id in kept
        and jaccard_similarity(shingles(named[id_]), shingles(named[kept_id])) >= threshold
        for id_, kept_id in near_duplicates.items()
    )


@pytest.mark.req("F9")
def test_one_word_of_many_makes_a_near_duplicate_and_another_question_does_not() -> None:
    mail = " ".join(f"word{n}" for n in range(60))
    texts = {"first": mail, "again": f"{mail} thanks", "other": "where is my parcel"}

    assert find_near_duplicates(texts, threshold=0.9) == {"again": "first"}
