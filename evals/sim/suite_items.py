"""The suites that the simulator knows, read as the evals read them."""

from collections.abc import Iterable
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from evals.sim.item_bank import BankItem
from evals.suites import items
from harness.domain.errors import InputError
from harness.domain.settings import SuiteSettings

Source = str | Path | SuiteSettings


def load_suites(sources: Iterable[Source]) -> list[BankItem]:
    """All items of all sources, in their order. Raises InputError with file and line."""
    return [item for source in sources for item in load_suite_items(source)]


def load_suite_items(source: Source) -> list[BankItem]:
    """The items of one file: a path, `NAME=FILE`, or a suite's settings.

    Without a name the suite is called as the file, less its ending. A suite without a data
    file (an Inspect task) has no items here: its prompts are answered like unknown ones.
    """
    if isinstance(source, SuiteSettings):
        if source.path is None:
            return []
        name, path, fields = source.name, source.path, (source.input_field, source.target_field)
    else:
        given, _, file = str(source).rpartition("=")
        path, fields = Path(file), ("input", "")
        name = given or path.stem
    if not path.is_file():
        raise InputError(f"there is no suite file {path}; give an existing JSONL or CSV file")
    read = items.load_items(path, name=name, input_field=fields[0], target_field=fields[1])
    return [bank_item(item, suite=name, place=str(path)) for item in read]


def suite_files(folder: Path) -> list[Path]:
    """The suite files of a folder, in the order of their names."""
    return sorted(folder.glob("*.jsonl"))


def bank_item(sample: items.Item, *, suite: str, place: str) -> BankItem:
    metadata = sample.metadata
    difficulty = metadata.get("difficulty", 0.5)
    fits = isinstance(difficulty, int | float) and not isinstance(difficulty, bool)
    if not (fits and 0 <= difficulty <= 1):
        raise InputError(f"{place}: item {sample.id}: difficulty must be a number from 0 to 1")
    distractors = metadata.get("distractors", other_choices(sample))
    if not isinstance(distractors, list):
        raise InputError(f"{place}: item {sample.id}: distractors must be a list")
    return BankItem(
        suite=suite,
        id=sample.id,
        input=sample.input,
        target=sample.target,
        difficulty=float(difficulty),
        distractors=tuple(distractors),
        tool_call=tool_call(sample),
    )


def tool_call(sample: items.Item) -> dict[str, Any] | None:
    """The call that is the right answer: `metadata.tool_call`, or a target of that shape."""
    for found in (sample.metadata.get("tool_call"), sample.target):
        if isinstance(found, dict) and {"name", "arguments"} == set(found):
            return found
    return None


def other_choices(sample: items.Item) -> list[object]:
    """The wrong choices, in the form that the target has: text, letter or place."""
    choices = sample.choices
    places = range(len(choices))
    for options in (list(choices), list(ascii_uppercase[: len(choices)]), list(places)):
        if sample.target in options:
            return [option for option in options if option != sample.target]
    return []
