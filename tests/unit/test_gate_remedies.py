import shlex

import pytest

from evals.scorers.json_repair import REPAIRS
from evals.scorers.unwrap import unwrap_layers
from harness.cli.routing import models
from harness.cli.routing.route_options import TargetOptions, requested_target
from harness.control.proposals.format_failures import (
    model_add_command,
    patch_candidate,
    with_json_mode,
)
from harness.domain.routing.target import RequestPatch, Target
from harness.gate.offline.format_rules import (
    CALL,
    CODE_ONLY,
    FORMAT_RULES,
    JSON_ONLY,
    LABEL_ONLY,
    OTHER_RULE,
    TEXT_ONLY,
    find_remedy,
)

pytestmark = pytest.mark.req("A8")


def test_the_rules_that_repairs_and_peelings_name_have_words() -> None:
    named = {name for name, _ in REPAIRS} | {"leading_prose", "trailing_prose"}
    named |= {rule for rule, _ in unwrap_layers('```\\n**"label".**\\n```')}

    assert named <= set(FORMAT_RULES)


@pytest.mark.parametrize(
    ("rules", "worst", "prompts"),
    [
        ({"code_fence": 3, "trailing_comma": 2}, "code_fence", [JSON_ONLY]),
        (
            {"code_fence+single_quotes": 2, "code_fence": 2, "key_case": 3},
            "code_fence",
            [JSON_ONLY, FORMAT_RULES["key_case"].prompt],
        ),
        ({"code_fence": 30, "key_case": 1}, "code_fence", [JSON_ONLY]),
        ({"b": 1, "a": 1}, "a", [OTHER_RULE.prompt]),
    ],
)
def test_the_rule_that_broke_most_decides_and_others_that_broke_often_get_a_line(
    rules: dict[str, int], worst: str, prompts: list[str]
) -> None:
    remedy = find_remedy(rules)

    assert remedy is not None
    assert (remedy.rule, remedy.prompt) == (worst, " ".join(prompts))


@pytest.mark.parametrize(
    ("scorer", "line", "json_mode"),
    [
        ("json_fields", JSON_ONLY, True),
        ("label", LABEL_ONLY, False),
        ("code", CODE_ONLY, False),
        ("instructions", TEXT_ONLY, False),
        ("tool_call", CALL, False),
    ],
)
def test_a_fence_around_something_else_than_json_is_not_mended_by_json(
    scorer: str,
    line: str,
    json_mode: bool,  # noqa: FBT001 - one case of a table
) -> None:
    remedy = find_remedy({"code_fence": 1}, scorer)

    assert remedy is not None
    assert (remedy.prompt, remedy.json_mode) == (line, json_mode)


def test_nothing_broken_needs_no_remedy() -> None:
    assert find_remedy({}) is None


CANDIDATE = Target(
    "sim", "m", {"effort": "high", "top_p": 0.5}, RequestPatch({"seed": 7}, "Don't hurry.")
)


@pytest.mark.parametrize("rule", [*FORMAT_RULES, "startend:quotation", "something else"])
def test_the_command_registers_the_candidate_with_the_line_and_all_that_it_had(
    rule: str,
) -> None:
    remedy = find_remedy({rule: 1})
    assert remedy is not None
    mended = patch_candidate(CANDIDATE, remedy)

    assert mended.request_patch.prompt_addendum == f"Don't hurry. {remedy.prompt}"
    for target in (mended, with_json_mode(CANDIDATE)):
        words = shlex.split(model_add_command(target))
        assert words[:4] == ["swapgate", "model", "add", "sim/m"]
        assert registered(words[3:]).id == target.id


def registered(words: list[str]) -> Target:
    """As `swapgate model add` would read them."""
    given = models.add.make_context("add", words).params
    options = TargetOptions(**{name: given[name] for name in TargetOptions.__annotations__})
    return requested_target(given["name"], options)
