"""The item bank reads suite files and finds the item that a rendered prompt asks for.

A provider sees text only, so the prompt is all that the simulator goes by. It looks the prompt
up whole, then searches it for items that a template wrapped. White space does not matter.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from pydantic.dataclasses import dataclass

from evals.sim.profiles import Share, parse
from evals.suites import items
from harness.domain.errors import InputError
from harness.domain.settings import SuiteSettings


@dataclass(frozen=True)
class BankItem:
    """Holds one question of a suite."""

    suite: str
    id: str
    input: str
    target: Any
    difficulty: Share = 0.5  # 0 (easy) to 1 (hard)
    distractors: tuple[Any, ...] = ()  # plausible wrong answers
    # `{"name": …, "arguments": {…}}` if the right answer is a call.
    tool_call: Mapping[str, Any] | None = None


def flatten_whitespace(text: str) -> str:
    """The text with every run of white space as one space."""
    return " ".join(text.split())


class ItemBank:
    """Holds all items of all suites. Where two have the same input, the first is kept.

    version: tells a bank with suites of a user's own from the others; empty without.
    """

    def __init__(self, items: Iterable[BankItem], version: str = "") -> None:
        self.version = version
        self.suites: dict[str, list[BankItem]] = {}
        self._exact: dict[str, BankItem] = {}
        for item in items:
            self._exact.setdefault(flatten_whitespace(item.input), item)
            self.suites.setdefault(item.suite, []).append(item)
        self._shortest = min(map(len, self._exact), default=0)

    def find(self, prompt: str) -> BankItem | None:
        """The item that the prompt asks, None if it holds none.

        Of several (worked examples before the question) the one that ends last, and of those
        the longest.
        """
        text = flatten_whitespace(prompt)
        if (exact := self._exact.get(text)) or len(text) < self._shortest:
            return exact
        found = [known for known in self._exact if known and known in text]
        best = max(found, key=lambda k: (text.rfind(k) + len(k), len(k)), default="")
        return self._exact.get(best)


Source = str | Path | SuiteSettings


def load_suites(sources: Iterable[Source]) -> list[BankItem]:
    """Loads all items of all sources, in their order. Raises InputError with file and line."""
    return [item for source in sources for item in load_suite_items(source)]


def load_suite_items(source: Source) -> list[BankItem]:
    """Loads the items of one file: a path, `NAME=FILE`, or a suite's settings.

    Without a name the suite is called as the file, less its ending. A suite without a data
    file (an Inspect task) has no items here: its prompts are answered like unknown ones.
    """
    if not isinstance(source, SuiteSettings):
        given, _, file = str(source).rpartition("=")
        source = SuiteSettings(given or Path(file).stem, path=Path(file))
    if source.path is None:
        return []
    if not source.path.is_file():
        raise InputError(
            f"there is no suite file {source.path}; give an existing JSONL or CSV file"
        )
    read = items.load_items(
        source.path,
        name=source.name,
        input_field=source.input_field,
        target_field=source.target_field,
    )
    return [bank_item(item, suite=source.name, place=str(source.path)) for item in read]


def suite_files(folder: Path) -> list[Path]:
    """Lists the suite files of a folder, in the order of their names."""
    return sorted(folder.glob("*.jsonl"))


def bank_item(sample: items.Item, *, suite: str, place: str) -> BankItem:
    """Reads an item of a suite. Its call is `metadata.tool_call`, or a target of that shape.
    Raises InputError.
    """
    known = sample.metadata
    calls = [
        call
        for call in (known.get("tool_call"), sample.target)
        if isinstance(call, dict) and {"name", "arguments"} == set(call)
    ]
    fields = {
        "suite": suite,
        "id": sample.id,
        "input": sample.input,
        "target": sample.target,
        "difficulty": known.get("difficulty", 0.5),
        "distractors": known.get("distractors", other_choices(sample)),
        "tool_call": calls[0] if calls else None,
    }
    return parse(BankItem, fields, f"{place}: item {sample.id}")


def other_choices(sample: items.Item) -> list[object]:
    """The wrong choices, in the form that the target has: text, letter or place."""
    choices = sample.choices
    places = range(len(choices))
    for options in (list(choices), list(ascii_uppercase[: len(choices)]), list(places)):
        if sample.target in options:
            return [option for option in options if option != sample.target]
    return []
