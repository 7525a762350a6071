"""Our own data sets are what their manifest says, and their answers hold."""

import ast
import hashlib
import json
import re
import tomllib
from collections import Counter
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from evals.scorers.instructions import share

FOLDER = Path(__file__).resolve().parents[2] / "datasets"
SUITES = ("arithmetic", "extraction", "tickets", "instructions")
SAME_SHAPE_LIMIT = 3

pytestmark = pytest.mark.req("A7", "F6")
each_suite = pytest.mark.parametrize("suite", SUITES)


@cache
def items(suite: str) -> list[dict[str, Any]]:
    text = (FOLDER / f"{suite}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def manifest() -> dict[str, dict[str, Any]]:
    text = (FOLDER / "manifest.toml").read_text(encoding="utf-8")
    return {entry["name"]: entry for entry in tomllib.loads(text)["dataset"]}


def story(suite: str, item: dict[str, Any]) -> str:
    """The part of the input that is not boilerplate of its suite."""
    text: str = item["input"]
    if suite == "tickets":
        return text.split("Ticket:\n", 1)[1].rsplit("\n\n", 1)[0]
    if suite == "extraction":
        return text.split("-----\n", 1)[1].rsplit("\n-----", 1)[0]
    return text.rsplit("\n\n", 1)[0]


def shape(text: str) -> str:
    masked = re.sub(r"\d[\d.,:/'-]*", "#", text)
    return re.sub(r"\b[A-Z][\w'’]*(?: [A-Z][\w'’]*)*", "N", masked)


def exact(node: ast.expr) -> Fraction:
    """The value of an arithmetic expression, without the generator's own evaluator."""
    match node:
        case ast.Constant(value=int() | float() as number):
            return Fraction(str(number))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return exact(left) + exact(right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return exact(left) - exact(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return exact(left) * exact(right)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return exact(left) / exact(right)
        case _:
            raise AssertionError(ast.dump(node))


@each_suite
def test_the_manifest_states_hash_count_licence_and_origin_of_each_file(suite: str) -> None:
    entry = manifest()[suite]
    content = (FOLDER / entry["file"]).read_bytes()

    assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert entry["items"] == content.count(b"\n") == len(items(suite)) >= 400
    assert entry["licence"] == "CC0-1.0"
    assert entry["version"] == "1"


def test_ids_and_inputs_are_unique_over_all_suites() -> None:
    everything = [item for suite in SUITES for item in items(suite)]

    assert len({item["id"] for item in everything}) == len(everything)
    assert len({item["input"] for item in everything}) == len(everything)


@each_suite
def test_no_story_differs_from_more_than_two_others_by_names_and_numbers_only(
    suite: str,
) -> None:
    shapes = Counter(shape(story(suite, item)) for item in items(suite))

    assert max(shapes.values()) <= SAME_SHAPE_LIMIT


@each_suite
def test_difficulty_spreads_from_easy_to_hard_and_is_mixed_in_the_file(suite: str) -> None:
    levels = [item["metadata"]["difficulty"] for item in items(suite)]
    halves = [sum(part) / len(part) for part in (levels[::2], levels[1::2])]
    thirds = [sum(part) / len(part) for part in (levels[:160], levels[160:320], levels[320:])]

    assert all(0 <= level <= 1 for level in levels)
    assert len(set(levels)) >= 5
    assert min(levels) <= 0.2
    assert max(levels) >= 0.8
    assert max(halves + thirds) - min(halves + thirds) < 0.1


@each_suite
def test_every_item_has_two_distractors_of_the_targets_type_that_are_wrong(suite: str) -> None:
    for item in items(suite):
        wrong = item["metadata"]["distractors"]
        assert len(wrong) >= 2, item["id"]
        assert item["target"] not in wrong, item["id"]
        assert len({json.dumps(answer, sort_keys=True) for answer in wrong}) == len(wrong)
        assert {type(answer) for answer in wrong} == {type(item["target"])}, item["id"]


def test_arithmetic_targets_are_the_values_of_their_expressions() -> None:
    for item in items("arithmetic"):
        tree = ast.parse(item["metadata"]["expression"], mode="eval")
        assert exact(tree.body) == Fraction(item["target"]), item["id"]
        assert all(
            Fraction(w) != Fraction(item["target"]) for w in item["metadata"]["distractors"]
        )


def test_arithmetic_expressions_use_numbers_that_the_problem_states() -> None:
    # Words such as "twice", a percentage's 100, minutes of an hour: known without being said.
    known = {"1", "1.5", "2", "3", "4", "5", "60", "100", "1000"}
    for item in items("arithmetic"):
        said = set(re.findall(r"\d+(?:\.\d+)?", item["input"])) | known
        used = set(re.findall(r"\d+(?:\.\d+)?", item["metadata"]["expression"]))
        assert used <= said, (item["id"], used - said)


def test_arithmetic_problems_take_two_to_six_steps_from_many_scenarios() -> None:
    families = Counter(item["metadata"]["tags"][0] for item in items("arithmetic"))

    assert {item["metadata"]["steps"] for item in items("arithmetic")} == {2, 3, 4, 5, 6}
    assert len(families) >= 15
    assert max(families.values()) <= 20
    assert all("ANSWER: <number>" in i["input"].splitlines()[-1] for i in items("arithmetic"))


def test_extraction_targets_and_distractors_fit_the_schema_of_their_item() -> None:
    for item in items("extraction"):
        schema = item["metadata"]["schema"]
        Draft202012Validator.check_schema(schema)
        validator = Draft202012Validator(schema)
        for answer in (item["target"], *item["metadata"]["distractors"]):
            assert validator.is_valid(answer), (item["id"], answer)
        assert schema["additionalProperties"] is False
        assert set(schema["required"]) == set(schema["properties"]) == set(item["target"])


def test_extraction_answers_stand_in_the_text_word_for_word_where_they_are_plain_text() -> None:
    plain = ("order_number", "customer", "invoice_number", "supplier", "tracking_number")
    for item in items("extraction"):
        text = story("extraction", item).casefold()
        for key in plain:
            value = item["target"].get(key)
            assert value is None or value.casefold() in text, (item["id"], key)


def test_ticket_labels_are_balanced_and_listed_in_the_input() -> None:
    labels = Counter(item["target"] for item in items("tickets"))

    assert len(labels) == 8
    assert set(labels.values()) == {60}
    for item in items("tickets"):
        assert all(f"- {label}:" in item["input"] for label in labels)
        assert set(item["metadata"]["distractors"]) <= set(labels)


def test_a_hard_ticket_never_contains_the_words_of_its_own_label() -> None:
    for item in items("tickets"):
        words = item["target"].replace("_", " ").split()
        ticket = story("tickets", item).casefold().split()
        if item["metadata"]["difficulty"] > 0.5:
            assert not set(words) & {word.strip(".,:;!?()") for word in ticket}, item["id"]


def test_instruction_targets_keep_every_rule_and_distractors_break_one() -> None:
    names = Counter[str]()
    for item in items("instructions"):
        rules = item["metadata"]["rules"]
        names.update(rule["rule"] for rule in rules)
        assert 2 <= len(rules) <= 4
        assert share(item["target"], rules) == 1.0, item["id"]
        assert all(share(wrong, rules) < 1.0 for wrong in item["metadata"]["distractors"])

    assert len(names) == 11
    assert min(names.values()) >= 20
