"""Texts, labels and numbers are compared as people write them."""

import json
import unicodedata
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.scorers import SCORERS, find_scorer
from evals.scorers.numbers import COMMA, POINT, read_number
from evals.scorers.typography import LONG_DASHES, mentioned, plain_typography
from evals.suites.items import Item, load_items
from evals.suites.suite import load_suite
from harness.evals.settings import SuiteSettings
from harness.frame.canonical_text import canonical, canonical_value
from harness.frame.errors import InputError

pytestmark = pytest.mark.req("F2")

JOINERS = "-‐‑‒–−'’_&+"
words = st.text(st.characters(categories=["Lu", "Ll", "Lo", "Mn", "Nd"]), min_size=1)


@given(st.text(min_size=1))
def test_an_answer_in_another_canonical_form_is_the_target(text: str) -> None:
    target = Item("i", "asked", unicodedata.normalize("NFC", text))
    answer = unicodedata.normalize("NFD", text)
    scorer = find_scorer("exact")

    scored = scorer.score(answer, target, scorer.options({}))

    assert scored.strict == (1 if answer.strip() else 0)


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(words, inner)))
def test_a_value_has_one_canonical_form(value: object) -> None:
    plain = canonical_value(value)

    assert canonical_value(plain) == plain


@given(st.text())
def test_plain_typography_is_plain_already(text: str) -> None:
    assert plain_typography(plain_typography(text)) == plain_typography(text)


@given(before=words, joiner=st.sampled_from(JOINERS + LONG_DASHES))
def test_a_label_is_not_found_behind_a_joined_word(before: str, joiner: str) -> None:
    assert mentioned(f"{before}x{joiner}refundable", ["refundable", "other"]) == set()


@given(after=words, joiner=st.sampled_from(JOINERS))
def test_a_label_is_not_found_before_a_joined_word(after: str, joiner: str) -> None:
    assert mentioned(f"refundable{joiner}x{after}", ["refundable", "other"]) == set()


@pytest.mark.parametrize("text", ["4.5", "4,5", "-5", "2/5", "5.0", "15", "5:30"])
def test_a_number_is_not_found_as_a_label_in_another_number(text: str) -> None:
    assert mentioned(f"The answer is {text}.", ["5"]) == set()


def test_a_sign_belongs_to_its_label() -> None:
    assert mentioned("Score: -1.", ["1", "-1"]) == {"-1"}
    assert mentioned("Score: 1.", ["1", "-1"]) == {"1"}


GROUPS = [",", "'", "’", "\u00a0", "\u202f", "\u2009", "_"]


@given(
    number=st.integers(-(10**12), 10**12),
    cents=st.integers(0, 99),
    group=st.sampled_from(GROUPS),
    minus=st.sampled_from("-−–"),
)
def test_a_number_is_read_in_each_way_to_write_it(
    number: int, cents: int, group: str, minus: str
) -> None:
    written = f"{number:,}.{cents:02}".replace(",", group).replace("-", minus)
    german = written.replace(".", COMMA) if group != "," else ""
    value = Decimal(f"{number}.{cents:02}")

    assert read_number(written) == value
    assert not german or read_number(german) == value


@given(st.integers(0, 10**12))
def test_digits_of_other_scripts_are_digits(number: int) -> None:
    for zero in "０٠०":
        digits = "".join(chr(ord(zero) + int(digit)) for digit in str(number))
        assert read_number(digits) == number


@given(st.integers(0, 999_999), st.text(st.sampled_from("0123456789"), min_size=1, max_size=6))
def test_a_comma_is_never_left_out(whole: int, decimals: str) -> None:
    text = f"{whole},{decimals}"
    grouped = len(decimals) == 3 and 0 < whole < 1_000
    decimal = Decimal(f"{whole}.{decimals}")

    assert read_number(text, COMMA) == decimal
    assert read_number(text, POINT) == (int(f"{whole}{decimals}") if grouped else decimal)


WRONG: Final[Mapping[str, tuple[dict[str, object], dict[str, object], str]]] = {
    "exact": ({"target": " "}, {}, "0 (empty_answer)"),
    "regex": ({"target": "maybe"}, {"pattern": "yes|no"}, "0"),
    "json_fields": (
        {"target": {"a": "1"}, "metadata": {"schema": {"properties": {"a": {"type": "null"}}}}},
        {},
        "0",
    ),
    "json_schema": ({"target": "3"}, {"schema": {"type": "number"}}, "0"),
    "tool_call": ({"target": [{"name": "f", "arguments": {}}] * 33}, {}, "0"),
    "instructions": (
        {"target": "One, two.", "metadata": {"rules": [{"rule": "no_commas"}]}},
        {},
        "0",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_target_that_its_scorer_calls_wrong_is_refused_with_its_line(
    tmp_path: Path, name: str
) -> None:
    wrong, options, score = WRONG[name]
    file = tmp_path / "data.jsonl"
    file.write_text(f"\n{json.dumps({'input': 'asked', **wrong})}\n")
    settings = SuiteSettings("s", path=file, scorer=name, scorer_options=options)

    with pytest.raises(InputError) as error:
        load_suite(settings)
    assert f"{file}:2: item 's-0001': scorer '{name}' gives its own target" in str(error.value)
    assert f" {score}" in str(error.value)


def test_a_number_with_two_readings_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    targets = ["4,5", "1,234", "7.25"]
    file.write_text("".join(f'{{"input": "q", "target": "{one}"}}\n' for one in targets))
    settings = SuiteSettings("s", path=file, scorer="numeric")

    with pytest.raises(
        InputError, match=r"data\.jsonl:2: item 's-0002': target '1,234' has two"
    ):
        load_suite(settings)


def test_each_scorer_that_compares_its_target_scores_it() -> None:
    rules = {"assertions", "judged_assertions", "code", "rubric", "pairwise", "preference"}
    unscored = {
        name
        for name, scorer in SCORERS.items()
        if scorer.target_score is SCORERS["code"].target_score
    }

    assert unscored == rules


def test_ids_clusters_and_slices_are_in_one_form(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    row = {"id": "Köln-1", "input": "q", "target": "a", "metadata": {"Straße": "Köln"}}
    decomposed = unicodedata.normalize("NFD", json.dumps(row, ensure_ascii=False))
    file.write_text(decomposed, encoding="utf-8")

    (item,) = load_items(file, name="s", cluster_field="Straße", slice_fields=["Straße"])

    assert (item.id, item.cluster, item.slices) == ("Köln-1", "Köln", ("Köln",))
    assert canonical(item.id) == item.id
