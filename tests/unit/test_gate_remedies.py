"""Every rule of form has words and a remedy."""

import pytest

from evals.scorers.json_repair import REPAIRS
from evals.scorers.peel import peelings
from harness.gate.remedies import FORMS, OTHER, patch_words, remedy_of

pytestmark = pytest.mark.req("A8")


def test_the_rules_that_repairs_and_peelings_name_have_words() -> None:
    named = {name for name, _ in REPAIRS} | {"leading_prose", "trailing_prose"}
    named |= {rule for rule, _ in peelings('```\\n**"label".**\\n```')}

    assert named <= set(FORMS)


@pytest.mark.parametrize(
    ("rules", "worst"),
    [
        ({"code_fence": 3, "trailing_comma": 2}, "code_fence"),
        ({"code_fence+single_quotes": 2, "code_fence": 2, "key_case": 3}, "code_fence"),
        ({"b": 1, "a": 1}, "a"),
    ],
)
def test_the_rule_that_broke_most_decides(rules: dict[str, int], worst: str) -> None:
    found = remedy_of(rules)

    assert found is not None
    assert found.rule == worst
    assert found.prompt == FORMS.get(worst, OTHER).prompt


def test_nothing_broken_needs_no_remedy() -> None:
    assert remedy_of({}) is None


@pytest.mark.parametrize("rule", [*FORMS, "something else"])
def test_every_remedy_can_be_given_on_a_command_line(rule: str) -> None:
    found = remedy_of({rule: 1})

    assert found is not None
    assert '"' not in found.prompt
    assert patch_words(found, "sim/m").count('"') == 2
