"""Regular expressions of users end in time, whatever text they meet (A8, F9)."""

import json

import pytest

from evals.scorers import ScoreResult, find_scorer
from evals.suites.items import Item
from harness.frame import matching
from harness.frame.errors import InputError, PatternTooSlow
from harness.frame.matching import BoundedPattern
from harness.frame.redaction import RedactionRule, Redactor

SLOW = r"(\w|\w\w)+[yz]$"
HOSTILE = "x" * 60 + "!"


@pytest.fixture(autouse=True)
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the time that a text has, all of which is spent."""
    monkeypatch.setattr(matching, "MATCH_TIMEOUT_S", matching.MATCH_TIMEOUT_S / 10)


def scored(
    name: str,
    answer: str,
    item: Item,
    **options: object,
) -> ScoreResult:
    chosen = find_scorer(name)
    filled = chosen.options(options)
    assert chosen.check(item, filled) is None
    return chosen.score(answer, item, filled)


@pytest.mark.parametrize("method", ["matches_whole", "matches_in", "spans"])
def test_an_expression_that_would_run_for_years_is_stopped(method: str) -> None:
    with pytest.raises(PatternTooSlow, match=r"took more than 0\.1 s"):
        getattr(BoundedPattern(SLOW), method)(HOSTILE)


def test_an_expression_finds_what_it_did() -> None:
    assert BoundedPattern(r"a.c", ignore_case=True).matches_whole("ABC")
    assert BoundedPattern(r"\bb+\b").spans("a bb b") == [(2, 4), (5, 6)]
    assert not BoundedPattern("a").matches_in("b")


@pytest.mark.parametrize("pattern", ["(", "[a", "*", "a" * 1001])
def test_a_text_that_is_no_expression_is_refused(pattern: str) -> None:
    with pytest.raises(InputError, match="regular expression"):
        BoundedPattern(pattern)


@pytest.mark.req("A8")
def test_an_answer_that_stalls_the_suites_expression_has_no_score() -> None:
    assert scored("regex", HOSTILE, Item("i", "asked", SLOW)) == ScoreResult(None, None)
    assert scored("regex", "xxy", Item("i", "asked", SLOW)) == ScoreResult(1, 1)


@pytest.mark.req("A8")
def test_an_answer_that_stalls_a_schemas_pattern_does_not_fit() -> None:
    item = Item("i", "asked", {"type": "object", "patternProperties": {SLOW: {}}})

    assert scored("json_schema", json.dumps({HOSTILE: 1}), item).strict == 0
    assert scored("json_schema", json.dumps({"a": "xxy"}), item).strict == 1


@pytest.mark.req("F9")
def test_nothing_is_kept_of_a_text_that_a_rule_did_not_get_through() -> None:
    redactor = Redactor((RedactionRule("slow", SLOW),))

    with pytest.raises(PatternTooSlow):
        redactor.redact({"text": HOSTILE})
    assert redactor.redact({"text": "so: xxy"}).value == {"text": "so: [SLOW_1]"}
