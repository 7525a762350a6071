"""Converts other tools' data sets into items, with a note for each field.

It reads the exports of Langfuse, Braintrust, LangSmith, OpenAI evals and DeepEval, JSON lines
and CSV.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from evals.suites.items import TARGET_FIELDS, read_records
from harness.frame.config_conversion import ConversionNote, ConversionOutcome
from harness.frame.errors import InputError


@dataclass(frozen=True, slots=True)
class DatasetFormat:
    """A tool's field names. marks: fields that identify the tool's records."""

    input: str
    target: str
    marks: frozenset[str]
    metadata: str = "metadata"


FORMATS: Final[Mapping[str, DatasetFormat]] = {
    "langfuse": DatasetFormat(
        "input", "expectedOutput", frozenset({"datasetId", "datasetName"})
    ),
    "langsmith": DatasetFormat("inputs", "outputs", frozenset({"inputs"})),
    "openai-evals": DatasetFormat("input", "ideal", frozenset({"ideal"})),
    "braintrust": DatasetFormat(
        "input", "expected", frozenset({"_xact_id", "dataset_id", "root_span_id"})
    ),
    "deepeval": DatasetFormat(
        "input",
        "expected_output",
        frozenset({"expected_output", "expectedOutput", "additional_metadata"}),
        "additional_metadata",
    ),
}
PLAIN: Final = DatasetFormat("input", "target", frozenset())
_SPELLINGS: Final[Mapping[str, str]] = {
    "expectedOutput": "expected_output",
    "additionalMetadata": "additional_metadata",
}
_TAKEN: Final = ("id", "tags", "choices")


@dataclass(frozen=True, slots=True)
class ImportedDataset:
    tool: str  # a key of FORMATS; empty for a plain file
    items: Sequence[Mapping[str, Any]]
    notes: Sequence[ConversionNote]


def read_dataset(path: Path) -> ImportedDataset:
    records = [*read_records(path)]
    fields = Counter(name for _, record in records for name in record)
    tool = next((name for name, form in FORMATS.items() if form.marks & set(fields)), "")
    names = FORMATS.get(tool, PLAIN)
    items: list[Mapping[str, Any]] = []
    lost: Counter[str] = Counter()
    for _, record in records:
        if record.get("status") == "ARCHIVED" or record.get("archived") is True:
            lost["archived"] += 1
            continue
        item = _item(record, names)
        if item["target"] in (None, "", {}):
            lost["without a right answer"] += 1
        else:
            items.append(item)
    if not items:
        looks = f"looks like a data set of {tool}" if tool else "is not a known data set"
        raise InputError(
            f"{path}: {looks}, and has no question with a right answer; its fields are "
            f"{', '.join(sorted(fields)) or 'none'}"
        )
    notes = [_note(path, name, number, names) for name, number in sorted(fields.items())]
    notes += [
        ConversionNote(str(path), "items", ConversionOutcome.LEFT, f"{number} {why}")
        for why, number in lost.items()
    ]
    return ImportedDataset(tool, items, notes)


def _item(record: Mapping[str, Any], names: DatasetFormat) -> Mapping[str, Any]:
    found = {**{_SPELLINGS.get(name, name): value for name, value in record.items()}, **record}
    target = found.get(names.target)
    if names is PLAIN:
        target = next((found[n] for n in TARGET_FIELDS if found.get(n) is not None), None)
    metadata = found.get(names.metadata)
    tags = found.get("tags")
    return {
        **({"id": str(found["id"])} if found.get("id") not in (None, "") else {}),
        "input": found.get(names.input),
        "target": target,
        **({"choices": found["choices"]} if found.get("choices") else {}),
        "metadata": {
            **(metadata if isinstance(metadata, Mapping) else {}),
            **({"tags": tags} if isinstance(tags, list) and tags else {}),
        },
    }


def _note(path: Path, name: str, number: int, names: DatasetFormat) -> ConversionNote:
    count = f"of {number} records"
    spelled = _SPELLINGS.get(name, name)
    if name in _TAKEN or spelled == names.input:
        outcome, note = ConversionOutcome.TAKEN, count
    elif names.target in (name, spelled) or (names is PLAIN and name in TARGET_FIELDS):
        outcome, note = ConversionOutcome.TAKEN, f"the right answer, {count}"
    elif spelled == names.metadata:
        outcome, note = ConversionOutcome.TAKEN, f"metadata, which slices may name, {count}"
    else:
        outcome, note = ConversionOutcome.LEFT, "no score depends on it"
    return ConversionNote(str(path), name, outcome, note)
