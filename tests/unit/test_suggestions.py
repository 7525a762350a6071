"""The name that an error message suggests instead of a refused one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.errors import InputError
from harness.frame.suggestions import did_you_mean, find_nearest
from harness.providers.kinds import check_kind
from harness.providers.models.model_match import list_nearest

NAMES = st.text("abc-1", min_size=1, max_size=5)


@given(name=NAMES, known=st.lists(NAMES, max_size=6))
def test_no_suggestion_is_the_refused_name(name: str, known: list[str]) -> None:
    among = [*known, name]

    assert find_nearest(name, among, cutoff=0.0) != name
    assert name not in list_nearest(name, among)
    assert f"'{name}'" not in did_you_mean(name, among)


def test_a_name_in_another_case_and_without_its_provider_is_suggested() -> None:
    assert find_nearest("Support", ["support", "sales"]) == "support"
    assert find_nearest("gpt-5", ["main/gpt-5"]) == "main/gpt-5"


@pytest.mark.req("D7")
@pytest.mark.parametrize(
    ("name", "kind"), [("azure", "azure_openai"), ("Google", "gemini"), ("opennai", "openai")]
)
def test_a_kind_is_suggested_for_another_products_name_of_it(name: str, kind: str) -> None:
    with pytest.raises(InputError, match=f"unknown kind {name!r}; did you mean {kind!r}"):
        check_kind(name)
