"""Converts other tools' data sets and reviewed traces into items, with a note for each field.

A record's label is its expected output or, without one, the label that a person gave
(`human_labels`). Records with the same question and label become one item.

A model's own answer is never a label, unless a person approved it. The formats are in
`source_formats`, the reading of files in `source_records`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from evals.suites.conversation import FIELDS
from evals.suites.equal_items import refuse_second_target
from evals.suites.human_labels import (
    SCORE_FIELDS,
    WITHOUT_LABEL,
    HumanLabels,
    accepts_approved,
    repeats_answer,
)
from evals.suites.item_clusters import CALLER, CONVERSATION
from evals.suites.items import (
    TARGET_FIELDS,
    UNLABELLED,
    Item,
    parse_cell,
    read_item,
    split_conversation,
)
from evals.suites.source_formats import (
    FORMATS,
    PLAIN,
    SPELLINGS,
    DatasetFormat,
    recognise,
)
from evals.suites.source_records import SourceFile, SourceRecord
from harness.frame.configuration.config_conversion import (
    ConversionNote,
    ConversionOutcome,
    NothingTaken,
)
from harness.frame.errors import InputError
from harness.frame.formatting import format_quantity
from harness.frame.plain_data import canonical_json, short_hash
from harness.routing.capture import MOST_OF_A_CALLER, draw_per_caller

_TAKEN: Final = ("id", "tags", "choices")
_ROLES: Final[Mapping[object, str]] = {"human": "user", "ai": "assistant"}  # LangChain's
# Metadata that scorers and requests read. Records that differ in it are separate items.
_DECIDING: Final = (*FIELDS, "rules", "schema", "assert", "threshold")
# Keys of an item's metadata with a meaning of their own in Swapproof.
_RESERVED: Final = ("messages", *FIELDS, "production", "provenance", UNLABELLED)
# Fields of traces that name their user and their conversation.
_PEOPLE: Final[Mapping[str, tuple[str, ...]]] = {
    CALLER: ("userId", "user_id"),
    CONVERSATION: ("sessionId", "session_id", "thread_id"),
}
_PSEUDONYM_BYTES: Final = 8
# Fields of a model's answer, also in plain tables; and fields that name a record's trace.
_ANSWERS: Final = frozenset({"output", "response", "completion", "actual_output"})
_TRACES: Final = ("sourceTraceId", "source_trace_id", "source_run_id")


@dataclass(frozen=True, slots=True)
class ImportedDataset:
    """The items of a data set, as lines of a suite's file. left_out: without a label, or
    archived.
    """

    tool: str  # a key of FORMATS; empty for a plain file
    items: Sequence[Mapping[str, Any]]
    notes: Sequence[ConversionNote]
    left_out: int = 0  # records
    unlabelled: int = 0  # items without a label


def read_dataset(
    source: SourceFile,
    tool: str = "",
    *,
    human_score: str = "",
    scorer: str = "exact",
) -> ImportedDataset:
    """Converts records into items. Skips repeats, and records of a data set without a label.

    A record of traffic, which has a model's answer, stays without a label too: its scores are
    missing (`items.UNLABELLED`). At most MOST_OF_A_CALLER records of a caller are drawn.

    Args:
        tool: a key of FORMATS or a plain form; empty to recognise it by content.
        human_score: the score whose values give labels.
        scorer: the suite's.

    Raises InputError as `file:line: …` at the first fault.
    """
    tool = tool or recognise(source)
    names = FORMATS.get(tool, PLAIN).for_fields(source.names)
    reader = _Reader(source, names, HumanLabels(human_score, scorer))
    reader.labels.learn_scales(source.records)
    for record in source.records:
        reader.add(record)
    reader.draw_per_caller()
    notes = [*reader.notes(human_score)]
    if reader.unlabelled == len(reader.items):
        reason = _explain_empty(source, tool, names, human_score)
        if number := reader.labels.too_free:
            reason += (
                f". People approved {format_quantity(number, 'answer')}; such a text is a "
                "reference for a judge (`--scorer rubric`), and a label (`--scorer label`) "
                "only if it is one of a few short texts"
            )
        raise NothingTaken(reason, notes)
    return ImportedDataset(
        tool if names is not PLAIN else "",
        reader.items,
        notes,
        reader.lost.total(),
        reader.unlabelled,
    )


def _explain_empty(
    source: SourceFile,
    tool: str,
    names: DatasetFormat,
    human_score: str,
) -> str:
    """Explains why a file has no item, and how the user can correct that."""
    if not source.records:
        return f"{source.path}: has no records; a suite needs at least one item"
    looks = f"looks like a data set of {tool}" if names is not PLAIN else "is no known data set"
    advice = ""
    if names.answer in source.names and not human_score:
        advice = ". If people scored the answers, name their score by --human-score"
    elif names is PLAIN:
        advice = (
            ". Name a question `input` and its answer `target`; `swapproof try` reads results"
        )
    return (
        f"{source.path}: {looks}, and has no question with a right answer; its fields are "
        f"{', '.join(sorted(source.names)) or 'none'}{advice}"
    )


@dataclass
class _Reader:
    """Collects items and counts for the notes. A reader reads one file."""

    source: SourceFile
    names: DatasetFormat
    labels: HumanLabels

    def __post_init__(self) -> None:
        self.items: list[Mapping[str, Any]] = []
        self.lost: Counter[str] = Counter()
        self.repeats = 0
        self.repeating_labels = 0  # records whose label repeats the model's free text
        self.conversations = 0  # records with `messages` instead of an input
        self.metadata: Counter[str] = Counter()
        self.grouped: Counter[str] = Counter()  # metadata keys with values for slices
        self._place_by_content: dict[str, str] = {}  # content → id or place
        self._content_by_id: dict[str, tuple[str, str]] = {}  # id → content, place
        self._target_by_question: dict[str, tuple[object, str]] = {}  # question → target, place

    def add(self, record: SourceRecord) -> None:
        """Adds a record's item, if it has a label and is new. Raises InputError for a faulty
        record.
        """
        fields = record.fields
        if fields.get("status") == "ARCHIVED" or fields.get("archived") in (
            True,
            "true",
        ):
            self.lost["archived"] += 1
            return
        values = {SPELLINGS.get(name, name): value for name, value in fields.items()}
        if self.source.form == "csv":
            question = self.names.input
            values = {
                name: value if name == question and self.names is PLAIN else parse_cell(value)
                for name, value in values.items()
            }
        if self.names is PLAIN and isinstance(values.get("messages"), list):
            self.conversations += "input" not in values
            split_conversation(values, "input", "target")
        target = self._find_label(replace(record, fields=values))
        if target in (None, "", {}):  # [] is a label: no tool call is right
            target = None
            has_question = values.get(self.names.input) not in (None, "", [], {})
            if not (has_question and self._is_drawn(values)):
                self.lost["without a right answer"] += 1
                return
        if values.get(self.names.input) in (None, "", [], {}):
            raise InputError(
                f"{record.place}: field {self.names.input!r}: missing or empty; fields here: "
                f"{', '.join(sorted(fields))}"
            )
        raw = self._build_line(values, target)
        item = read_item(raw, record.place)
        refuse_second_target(self._target_by_question, item, record.place)
        if self._is_new(item, record.place):
            self.items.append(raw)
            for name, value in raw["metadata"].items():
                self.metadata[name] += 1
                self.grouped[name] += isinstance(value, str | int)

    def _is_drawn(self, values: Mapping[str, Any]) -> bool:
        """Tells whether a record was drawn from traffic: its file has models' answers, or it
        names its trace. A failed request has no answer, but belongs to the sample.
        """
        answers = self.source.names & {self.names.answer, *_ANSWERS}
        return bool(answers) or any(values.get(name) for name in _TRACES)

    def _find_label(self, record: SourceRecord) -> object:
        """Returns the record's label: an expected output, else a person's label; None without
        one.
        """
        names = TARGET_FIELDS if self.names is PLAIN else self.names.targets
        candidates = (_reduce_answer(record.fields.get(name)) for name in names)
        target = next((value for value in candidates if value not in (None, "", {})), None)
        if target is None:
            answer = _reduce_answer(record.fields.get(self.names.answer))
            target = _reduce_answer(self.labels.label(record, answer))
        answers = [record.fields.get(name) for name in (self.names.answer, *_ANSWERS)]
        if not accepts_approved(self.labels.scorer, target) and repeats_answer(target, answers):
            self.repeating_labels += 1
            return None
        return target

    def _build_line(self, values: Mapping[str, Any], target: object) -> Mapping[str, Any]:
        """Builds an item's line. Another tool's metadata loses keys that Swapproof would
        misread.
        """
        metadata = values.get(self.names.metadata)
        item_metadata = dict(metadata) if isinstance(metadata, Mapping) else {}
        if self.names is not PLAIN:
            item_metadata = {
                name: value for name, value in item_metadata.items() if name not in _RESERVED
            }
        question = values.get(self.names.input)
        if isinstance(question, Mapping) and isinstance(question.get("messages"), list):
            item_metadata |= {name: question[name] for name in FIELDS if question.get(name)}
            question = question["messages"]
        if isinstance(question, list):
            question = [_convert_message(message) for message in question]
        tags = values.get("tags")
        id_ = values.get("id")
        id_ = str(id_) if isinstance(id_, int) else id_
        return {
            **({"id": id_} if id_ not in (None, "") else {}),
            "input": question,
            "target": target,
            **({"choices": values["choices"]} if values.get("choices") else {}),
            "metadata": {
                **item_metadata,
                **({UNLABELLED: WITHOUT_LABEL} if target is None else {}),
                **_hash_people(values),
                **({"tags": tags} if isinstance(tags, list) and tags else {}),
            },
        }

    @property
    def unlabelled(self) -> int:
        return sum(item["target"] is None for item in self.items)

    def draw_per_caller(self) -> None:
        """Keeps at most MOST_OF_A_CALLER items of each caller."""
        # The draw ignores the records' order and labels, because people may have chosen both.
        question_counts: Counter[str] = Counter()
        callers: dict[str, str] = {}
        for item in self.items:
            question = canonical_json([item["input"], item["metadata"].get("messages")])
            callers[f"{question}:{question_counts[question]}"] = _find_caller(item)
            question_counts[question] += 1
        drawn_ids = draw_per_caller(callers)
        drawn_items = [
            item for id_, item in zip(callers, self.items, strict=True) if id_ in drawn_ids
        ]
        if excess := len(self.items) - len(drawn_items):
            self.lost[f"of callers with more than {MOST_OF_A_CALLER} records"] += excess
        self.items = drawn_items

    def _is_new(self, item: Item, place: str) -> bool:
        """Returns whether the content is new. Raises InputError if an id has two contents."""
        question = item.metadata.get("messages") or item.input
        deciding = {name: item.metadata.get(name) for name in _DECIDING}
        content = canonical_json([question, item.target, list(item.choices), deciding])
        if item.id:
            first_content, first_place = self._content_by_id.setdefault(
                item.id, (content, place)
            )
            if first_content != content:
                raise InputError(
                    f"{place}: field 'id': {item.id!r} is already the id of {first_place}, "
                    "which has another question or answer; give each item its own id"
                )
        is_new = content not in self._place_by_content
        self._place_by_content.setdefault(content, place)
        self.repeats += not is_new
        return is_new

    def notes(self, human_score: str) -> Iterator[ConversionNote]:
        place = str(self.source.path)
        fields = Counter(name for record in self.source.records for name in record.fields)
        for name, number in sorted(fields.items()):
            outcome, text = self._describe_field(name, human_score)
            count = (
                "" if outcome is ConversionOutcome.LEFT else format_quantity(number, "record")
            )
            yield ConversionNote(place, name, outcome, f"{text}{count}")
        for name, number in sorted(self.metadata.items()):
            text = f"for `--slice` or `cluster`, {format_quantity(number, 'item')}"
            if not self.grouped[name] and name != "tags":
                text = (
                    "not for slices, because it is not a text; "
                    f"{format_quantity(number, 'item')}"
                )
            yield ConversionNote(place, f"metadata.{name}", ConversionOutcome.TAKEN, text)
        yield from self.labels.notes(place)
        if self.repeating_labels:
            count = format_quantity(self.repeating_labels, "record")
            text = f"{count} without a label, because it repeats the model's own free text"
            yield ConversionNote(place, "items", ConversionOutcome.CHANGED, text)
        for reason, number in self.lost.items():
            text = f"{format_quantity(number, 'record')} {reason}"
            yield ConversionNote(place, "items", ConversionOutcome.LEFT, text)
        if self.repeats:
            count = format_quantity(self.repeats, "record")
            text = (
                f"skipped {count} that repeat an item; to ask an item several times, set "
                "`epochs`"
            )
            yield ConversionNote(place, "items", ConversionOutcome.CHANGED, text)
        if self.source.replaced:
            text = "� replaces lone surrogates"
            yield ConversionNote(place, "texts", ConversionOutcome.CHANGED, text)

    def _describe_field(self, name: str, human_score: str) -> tuple[ConversionOutcome, str]:
        """Describes how the import used one of the file's fields: the outcome and a text."""
        names = self.names
        spelled = SPELLINGS.get(name, name)
        outcome = ConversionOutcome.TAKEN
        text = ""
        if name in _TAKEN or spelled == names.input:
            pass
        elif spelled in names.targets or (names is PLAIN and name in TARGET_FIELDS):
            text = "the right answer, "
        elif name == "messages" and self.conversations:
            text = "the last answer is the right one, "
        elif spelled == names.metadata and self.metadata:
            pass
        elif name == human_score or (name in SCORE_FIELDS and self.labels.has_scores):
            text = "for records without a right answer, "
        elif spelled == names.answer and self.labels.approved:
            outcome = ConversionOutcome.CHANGED
            text = f"the right answer of {self.labels.approved} by a person's score, "
        elif spelled == names.answer:
            text = "the model's answer, which a person did not approve"
            outcome = ConversionOutcome.LEFT
        else:
            outcome = ConversionOutcome.LEFT
            text = "no score depends on it"
        return outcome, text


def _hash_people(values: Mapping[str, Any]) -> Mapping[str, Mapping[str, str]]:
    """Returns the pseudonyms of a trace's user and conversation, as captures have them."""
    people = {
        kind: next((values[name] for name in names if values.get(name)), None)
        for kind, names in _PEOPLE.items()
    }
    hashed = {
        kind: short_hash(f"{kind}:{value}", _PSEUDONYM_BYTES).hex()
        for kind, value in people.items()
        if isinstance(value, str | int)
    }
    return {"provenance": hashed} if hashed else {}


def _find_caller(item: Mapping[str, Any]) -> str:
    return str(item["metadata"].get("provenance", {}).get(CALLER, ""))


def _convert_message(message: object) -> object:
    """Reads a message of LangChain, too: `type: human` instead of a role."""
    if not isinstance(message, dict) or message.get("role"):
        return message
    kind = message.get("type")
    return {"role": _ROLES.get(kind, kind), "content": message.get("content")}


def _reduce_answer(value: object) -> object:
    """Reduces an answer in a chat's form to its text; other values stay."""
    if isinstance(value, Mapping):
        match value:
            case {"choices": [{"message": Mapping() as message}, *_]}:
                return _reduce_answer(message)
            case {"messages": [*_, Mapping() as message]} if len(value) == 1:
                return _reduce_answer(message)
            case {"content": str() as text, "role": "assistant"} | {
                "content": str() as text,
                "type": "ai",
            }:
                return text
            case _:
                return value
    if isinstance(value, list) and value and isinstance(value[-1], Mapping):
        return _reduce_answer(value[-1]) if value[-1].get("role") == "assistant" else value
    return value
