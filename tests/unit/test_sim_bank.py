"""A prompt finds its item, whatever a template put around it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.sim import simulated_model
from evals.sim.server import simulator
from evals.sim.simulated_model import BankItem, ItemBank
from harness import package_data
from harness.domain.errors import InputError
from harness.domain.settings import SuiteSettings

SHIPPED = simulated_model.load_suites(
    simulated_model.suite_files(package_data.path("datasets"))
)
BANK = ItemBank(SHIPPED)
TEMPLATES = (
    "{input}",
    "  {input}\n\n",
    'Question: "{input}"\nThink step by step.',
    "<task>{input}</task>",
    "You are careful. Here is a task.\n\n{input}\n\nAnswer:",
)


def item(number: int, text: str) -> BankItem:
    return BankItem(suite="s", id=f"s-{number}", input=text, target="yes")


@given(found=st.sampled_from(SHIPPED), template=st.sampled_from(TEMPLATES))
def test_a_shipped_item_is_found_inside_any_template(found: BankItem, template: str) -> None:
    assert BANK.find(template.replace("{input}", found.input)) is found


def test_of_worked_examples_and_a_question_the_question_is_found() -> None:
    first, second = item(1, "How many legs has a spider?"), item(2, "How many legs has a cow?")
    bank = ItemBank([first, second])

    assert bank.find(f"Q: {first.input} A: 8\nQ: {second.input} A:") is second
    assert bank.find(f"Q: {second.input} A: 4\nQ: {first.input} A:") is first


def test_an_item_that_contains_another_is_the_one_found() -> None:
    short, long = (
        item(1, "How many legs has a cow?"),
        item(2, "Tell me. How many legs has a cow?"),
    )

    assert ItemBank([short, long]).find(f"Please: {long.input}") is long


def test_text_that_holds_no_item_finds_none() -> None:
    assert BANK.find("Tell me about the weather in words that no data set has.") is None
    assert BANK.find("") is None


def test_a_users_csv_with_its_own_columns_is_read_as_the_evals_read_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("question,expected\nWhat is the capital of Peru?,Lima\n", encoding="utf-8")

    (read,) = simulated_model.load_suite_items(
        SuiteSettings("geo", path=file, input_field="question")
    )

    assert (read.suite, read.input, read.target) == (
        "geo",
        "What is the capital of Peru?",
        "Lima",
    )


@pytest.mark.parametrize("metadata", ['{"difficulty": 2}', '{"distractors": "no"}'])
def test_metadata_that_makes_no_sense_is_refused(tmp_path: Path, metadata: str) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(f'{{"id": "m-1", "input": "a", "target": "b", "metadata": {metadata}}}\n')

    with pytest.raises(InputError, match="m-1"):
        simulated_model.load_suite_items(file)


def test_a_simulator_that_learns_a_suite_reports_another_version_of_its_models(
    tmp_path: Path,
) -> None:
    file = tmp_path / "mails.jsonl"
    versions = {simulator().models["sim-base"].fingerprint}
    for target in ("refund", "billing"):
        file.write_text(f'{{"input": "Where is my money?", "target": "{target}"}}\n')
        for _ in range(2):
            versions.add(simulator(suites=[file]).models["sim-base"].fingerprint)

    assert len(versions) == 3
