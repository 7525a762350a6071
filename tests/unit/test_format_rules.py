"""Answers as models give them: wrong in form, right in substance, each with its rule (A8)."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

import pytest

from evals.scorers import ScoreResult, find_scorer
from evals.scorers.unwrap import REPAIRS, unwrap_layers
from evals.suites.items import Item
from harness.gate.offline.format_rules import (
    CALL,
    CODE_ONLY,
    FORMAT_RULES,
    JSON_ONLY,
    LABEL_ONLY,
    OTHER_RULE,
    TEXT_ONLY,
    find_format_rule,
    find_remedy,
)
from harness.gate.run import UNREADABLE
from harness.interfaces.cli.routing import models
from harness.interfaces.cli.routing.route_options import (
    TargetOptions,
    requested_target,
)
from harness.proposals.report.findings import (
    add_json_mode,
    build_model_add_command,
    patch_candidate,
)
from harness.providers.target import RequestPatch, Target

pytestmark = pytest.mark.req("A8")

INVOICE = {
    "number": "INV-7",
    "supplier": "Kestrel & Sons",
    "total": 4982.49,
    "paid": None,
}
GOOD = json.dumps(INVOICE)
SPREAD = json.dumps(INVOICE, indent=2)
PYTHONIC = "{'number': 'INV-7', 'supplier': 'Kestrel & Sons', 'total': 4982.49, 'paid': None}"
JAVASCRIPT = '{number: "INV-7", supplier: "Kestrel & Sons", total: 4982.49, paid: null}'

JSON_ANSWERS = [
    (f"```json\n{SPREAD}\n```", "code_fence"),
    (
        f"Sure! Here's the JSON:\n\n```json\n{SPREAD}\n```\n\nAnything else?",
        "code_fence",
    ),
    (f"Based on the text, the object is: {GOOD}", "leading_prose"),
    (f"The keys are {{number, supplier}}. So:\n{GOOD}", "leading_prose"),
    (f"<think>It is {{not}} paid yet.</think>\n{SPREAD}", "leading_prose"),
    (
        f"{GOOD}\n\nNote: I set `paid` to null, as the text does not say.",
        "trailing_prose",
    ),
    (f"{GOOD}\n\nI left {{paid}} empty.", "trailing_prose"),
    (PYTHONIC, "single_quotes"),
    (SPREAD.replace("\n}", ",\n}"), "trailing_comma"),
    (JAVASCRIPT, "bare_keys"),
    (json.dumps(GOOD), "double_escaped"),
    (json.dumps(SPREAD), "double_escaped"),
    (GOOD.replace('"', '\\"'), "double_escaped"),
    (GOOD.replace("number", "Number").replace("total", "TOTAL"), "key_case"),
    (GOOD.replace("4982.49", '"4982.49"'), "value_type"),
    (GOOD.replace(', "paid": null', ""), "missing_null"),
    (f"```json\n{PYTHONIC}\n```", "code_fence+single_quotes"),
]


def scored(
    name: str,
    answer: str,
    item: Item,
    **options: Any,
) -> ScoreResult:
    chosen = find_scorer(name)
    settings = chosen.complete([item], chosen.options(options))
    assert chosen.check(item, settings) is None
    return chosen.score(answer, item, settings)


@pytest.mark.parametrize(("answer", "rule"), JSON_ANSWERS)
def test_json_that_an_application_could_not_parse_or_would_misread(
    answer: str, rule: str
) -> None:
    assert scored("json_fields", answer, Item("i", "asked", INVOICE)) == ScoreResult(0, 1, rule)


def test_an_object_within_another_is_not_taken_for_the_answer() -> None:
    nested = {"buyer": {"name": "Ann"}, "total": 4}
    item = Item("i", "asked", nested)

    for broken in (str(nested), '{"buyer": {"name": "Ann"}, "total": 4,}'):
        assert scored("json_fields", f"Use {{this}}: {broken}", item).lenient == 1


@pytest.mark.parametrize(("answer", "rule"), JSON_ANSWERS)
def test_the_same_forms_around_another_substance_are_wrong_both_ways(
    answer: str, rule: str
) -> None:
    other = Item("i", "asked", {**INVOICE, "supplier": "Marlow Textiles"})

    assert scored("json_fields", answer, other) == ScoreResult(0, 0), rule


def item_with_rules(*rules: Mapping[str, object]) -> Item:
    return Item("i", "asked", "", metadata={"rules": list(rules)})


TWO = {"rule": "sentences_exact", "count": 2}
NO_COMMAS = {"rule": "no_commas"}


@pytest.mark.parametrize(
    ("answer", "item", "rule"),
    [
        (
            "Sure, here it is:\n\nOne. Two.",
            item_with_rules(TWO, NO_COMMAS),
            "leading_prose",
        ),
        (
            "One. Two. Three. Four.",
            item_with_rules(TWO, NO_COMMAS),
            "length",
        ),
        (
            "Of course, here:\n\nOne. Two. Three.",
            item_with_rules(TWO, NO_COMMAS),
            "leading_prose+length",
        ),
        (
            "* a\n* b",
            item_with_rules({"rule": "bullets_exact", "count": 2}),
            "literal_form",
        ),
        (
            "1. a\n2. b",
            item_with_rules({"rule": "bullets_exact", "count": 2}),
            "literal_form",
        ),
        (
            "Go. **The end!**",
            item_with_rules({"rule": "ends_with", "phrase": "The end."}),
            "literal_form",
        ),
        (
            "so it is",
            item_with_rules({"rule": "starts_with", "word": "So"}),
            "literal_form",
        ),
        (
            "«Tea»\nHot.",
            item_with_rules({"rule": "title_in_angles"}),
            "literal_form",
        ),
    ],
)
def test_texts_that_follow_in_another_form(
    answer: str,
    item: Item,
    rule: str,
) -> None:
    assert scored("instructions", answer, item) == ScoreResult(0, 1, rule)


@pytest.mark.parametrize(
    ("answer", "item"),
    [
        ("One, two. Three. Four.", item_with_rules(TWO, NO_COMMAS)),
        # Its length is all that is asked for: then it is the substance.
        ("One. Two. Three.", item_with_rules(TWO)),
        ("* a", item_with_rules({"rule": "bullets_exact", "count": 2})),
        (
            "The end. Or not.",
            item_with_rules({"rule": "ends_with", "phrase": "The end."}),
        ),
    ],
)
def test_what_was_not_followed_in_any_form_stays_wrong(answer: str, item: Item) -> None:
    assert scored("instructions", answer, item) == ScoreResult(0, 0)


def test_every_rule_seen_here_has_words_of_its_own() -> None:
    rules = {rule.partition("+")[0] for _, rule in JSON_ANSWERS}
    rules |= {*UNREADABLE}

    assert rules <= set(FORMAT_RULES)
    for rule in (
        "call_as_text",
        "tool_name_form",
        "argument_type",
        "double_escaped",
    ):
        assert find_format_rule(rule, "tool_call") != OTHER_RULE


def test_the_rules_that_repairs_and_peelings_name_have_words() -> None:
    named = {name for name, _ in REPAIRS} | {
        "leading_prose",
        "trailing_prose",
    }
    named |= {rule for rule, _ in unwrap_layers('```\\n**"label".**\\n```')}

    assert named <= set(FORMAT_RULES)


@pytest.mark.parametrize(
    ("rules", "worst", "prompts"),
    [
        ({"code_fence": 3, "trailing_comma": 2}, "code_fence", [JSON_ONLY]),
        (
            {
                "code_fence+single_quotes": 2,
                "code_fence": 2,
                "key_case": 3,
            },
            "code_fence",
            [JSON_ONLY, FORMAT_RULES["key_case"].prompt],
        ),
        ({"code_fence": 30, "key_case": 1}, "code_fence", [JSON_ONLY]),
        ({"b": 1, "a": 1}, "a", [OTHER_RULE.prompt]),
    ],
)
def test_the_rule_that_broke_most_decides_and_others_that_broke_often_get_a_line(
    rules: dict[str, int],
    worst: str,
    prompts: list[str],
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
    "sim",
    "m",
    {"effort": "high", "top_p": 0.5},
    RequestPatch({"seed": 7}, "Don't hurry."),
)


@pytest.mark.parametrize("rule", [*FORMAT_RULES, "something else"])
def test_the_command_registers_the_candidate_with_the_line_and_all_that_it_had(
    rule: str,
) -> None:
    remedy = find_remedy({rule: 1})
    assert remedy is not None
    mended = patch_candidate(CANDIDATE, remedy)

    assert mended.request_patch.prompt_addendum == f"Don't hurry. {remedy.prompt}"
    for target in (mended, add_json_mode(CANDIDATE)):
        words = shlex.split(build_model_add_command(target))
        assert words[:4] == ["swapproof", "model", "add", "sim/m"]
        assert registered(words[3:]).id == target.id


def registered(words: list[str]) -> Target:
    """As `swapproof model add` would read them."""
    given = models.add.make_context("add", words).params
    options = TargetOptions(**{name: given[name] for name in TargetOptions.__annotations__})
    return requested_target(given["name"], options)
