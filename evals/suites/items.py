"""Reads a data file (JSONL, JSON or CSV), also in other tools' forms, into items.

Errors name file and line. It also reads a judge's references: answers with people's scores.

An item is independent of its scorer. `suite` checks whether the scorer can judge it.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from harness.evals.recorded_turn import Coverage, RecordedTurn
from harness.frame.canonical_text import canonical
from harness.frame.errors import InputError
from harness.frame.plain_data import hash_content
from harness.frame.text_files import (
    csv_records,
    decode_text,
    replace_surrogates,
    text_lines,
)
from harness.gate.suite_plan import RUN_CLUSTER, read_group, read_slice

# A key of an item's metadata: the reason why a drawn record has no label.
UNLABELLED: Final = "unlabelled"
TARGET_FIELDS = ("target", "expected")
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# A target that is one of promptfoo's assertions in text form.
_ASSERTION: Final = re.compile(
    r"(?P<kind>(?:not-)?(?:equals|i?contains(?:-all|-any|-json)?|starts-with|is-json|"
    r"llm-rubric|model-graded-[a-z]+|javascript|similar|factuality|levenshtein))"
    r"(?:\([^)]*\))?(?::\s*(?P<value>.*))?",
    re.DOTALL,
)
# Assertions that need no colon and value.
_VALUELESS: Final = frozenset({"is-json", "contains-json", "not-is-json", "not-contains-json"})


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a suite, with the right answer."""

    id: str
    input: str
    target: object  # the scorer compares with it: any JSON value; null only if `unlabelled`
    choices: tuple[str, ...] = ()  # the options of a multiple-choice item, in order
    metadata: Mapping[str, Any] = field(default_factory=dict)  # `schema`, `rules` and more
    cluster: str = ""  # empty if the suite has no cluster field
    slices: tuple[str, ...] = ()  # the values of the suite's slice fields, in their order

    @property
    def unlabelled(self) -> str:
        """The reason why the drawn record has no label; empty if it has one.

        Without a label, every model's score is missing.
        """
        return str(self.metadata.get(UNLABELLED, "")) if self.target is None else ""


# A key of an item's metadata in a draw of agents' runs: the place of its turn.
TURN: Final = "turn"


def read_turn(item: Item) -> RecordedTurn | None:
    """Reads the place of a drawn item in an agent's run; None for any other item. Raises
    InputError for a turn in another form than a draw writes.
    """
    turn = item.metadata.get(TURN)
    if turn is None or "production" not in item.metadata:
        return None
    try:
        return RecordedTurn(
            str(item.metadata[RUN_CLUSTER]),
            int(turn["number"]),
            int(turn["of"]),
            Coverage(turn["coverage"]),
            is_logged=is_answered(item),
        )
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"item {item.id!r}: 'metadata.{TURN}' is not what a draw writes: draw the suite "
            "again"
        ) from None


def list_openings(items: Iterable[Item]) -> Sequence[Item]:
    """Lists the items, and of each agent's run only the first turn, whose text the other turns
    repeat.
    """
    openings: dict[str, tuple[int, Item]] = {}
    for item in items:
        turn = read_turn(item)
        name = turn.run if turn else item.id
        number = turn.number if turn else 1
        if name not in openings or number < openings[name][0]:
            openings[name] = number, item
    return [item for _, item in openings.values()]


def is_answered(item: Item) -> bool:
    """Tells whether the log has the answer to an item that was drawn from traffic. True for any
    other item.
    """
    production = item.metadata.get("production")
    return not isinstance(production, Mapping) or production.get("answered") is not False


def logged_tokens(item: Item) -> tuple[int, int] | None:
    """Returns the tokens of a drawn item's logged request and answer; None if unknown."""
    production = item.metadata.get("production")
    tokens = production.get("tokens") if isinstance(production, Mapping) else None
    return (int(tokens[0]), int(tokens[1])) if tokens else None


def load_items(
    path: Path,
    *,
    name: str,
    input_field: str = "input",
    target_field: str = "",
    cluster_field: str = "",
    slice_fields: Sequence[str] = (),
) -> tuple[Item, ...]:
    """Loads the items of a data file, in the file's order.

    Args:
        name: the suite's; an item without an id is `NAME-0001`, by its place in the file.
        target_field: empty for `target` or `expected`; `a+b` joins two fields into an object.
        cluster_field: a field of the metadata; empty for none.
        slice_fields: fields of the metadata; empty for none.

    Raises InputError as `file:line: reason` at the first fault, and for an empty file.
    """
    items: list[Item] = []
    line_by_id: dict[str, int] = {}
    for number, (line, record) in enumerate(read_records(path, input_field), start=1):
        place = f"{path}:{line}"
        item = read_item(
            record,
            place,
            default_id=f"{name}-{number:04}",
            input_field=input_field,
            target_field=target_field,
        )
        if item.id in line_by_id:
            raise InputError(
                f"{place}: field 'id': {item.id!r} is already the id of line "
                f"{line_by_id[item.id]}; give each item its own id"
            )
        line_by_id[item.id] = line
        if cluster_field:
            cluster = read_group(item.metadata, cluster_field, place)
            item = replace(item, cluster=cluster)
        if slice_fields:
            values = tuple(read_slice(item.metadata, name, place) for name in slice_fields)
            item = replace(item, slices=values)
        items.append(item)
    if not items:
        raise InputError(f"{path}: no items; a suite needs at least one line of data")
    return tuple(items)


def find_line(path: Path, place: int, input_field: str = "input") -> int:
    """Returns the line, or the place in a JSON file, of the record at `place`, from 0."""
    line, _ = next(islice(read_records(path, input_field), place, None))
    return line


def file_sha256(path: Path) -> str:
    """Hashes a file's bytes. Raises InputError if it cannot be read."""
    return hash_content(_read_bytes(path))


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _read_text(path: Path) -> str:
    return decode_text(_read_bytes(path), str(path))


def read_records(
    path: Path, input_field: str = "input"
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the records of a file, each with its line or place. Raises InputError.

    Args:
        input_field: cells of this field stay text in CSV, even if they look like JSON.
    """
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            return json_lines(path)
        case ".json":
            return _read_json_array(path)
        case ".csv" | ".tsv":
            return _read_csv(path, input_field)
        case ".yaml" | ".yml":
            raise InputError(
                f"{path}: a YAML file, such as promptfoo's configuration, has no items; use "
                ".jsonl, .json or .csv"
            )
        case suffix:
            raise InputError(
                f"{path}: unknown kind of file {suffix!r}; use .jsonl, .json or .csv"
            )


def _read_json_array(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        records = replace_surrogates(DECODER.decode(_read_text(path)))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}:1: not JSON: {error}") from None
    if not isinstance(records, list) or not all(isinstance(item, dict) for item in records):
        raise InputError(f"{path}:1: must be an array of objects, one for each item")
    yield from enumerate(records, start=1)


def _refuse_nan(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


# Shared, because building a decoder takes longer than reading a line.
DECODER: Final = json.JSONDecoder(parse_constant=_refuse_nan)


ESCAPE: Final = "\\u"  # JSON can write a lone surrogate only as an escape


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields number and object of each non-blank line. Raises InputError as `file:line: …`."""
    for number, line in text_lines(_read_text(path)):
        try:
            record = DECODER.decode(line)
            if ESCAPE in line:
                record = replace_surrogates(record)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{path}:{number}: not JSON: {error.msg} at column {error.colno}"
            ) from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}:{number}: not JSON: {error}") from None
        if not isinstance(record, dict):
            raise InputError(f"{path}:{number}: each line must be one JSON object {{…}}")
        yield number, record


def _read_csv(path: Path, input_field: str) -> Iterator[tuple[int, dict[str, Any]]]:
    def fault(line: int, reason: str) -> InputError:
        return InputError(f"{path}:{line}: {reason}")

    for line, row in csv_records(_read_text(path), fault):
        yield (
            line,
            {
                key: value if key == input_field else parse_cell(value)
                for key, value in row.items()
                if value
            },
        )


def parse_cell(value: object) -> object:
    """Parses a cell with a JSON object or list; other cells are text."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    try:
        return replace_surrogates(DECODER.decode(value))
    except (ValueError, RecursionError):
        return value


def read_item(
    record: Mapping[str, Any],
    place: str,
    *,
    default_id: str = "",
    input_field: str = "input",
    target_field: str = "",
) -> Item:
    """Reads one record. Raises InputError as `place: field …`."""
    targets = tuple(target_field.split("+")) if target_field else TARGET_FIELDS
    record = _read_record(
        {canonical(name): value for name, value in record.items()},
        place,
        input_field=input_field,
        target_fields=targets,
    )
    question = _require_field(record, (input_field,), place)
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"{place}: field {input_field!r}: must be a text that is not empty")
    metadata = _read_metadata(record.get("metadata"), place)
    reason = metadata.get(UNLABELLED)
    if isinstance(reason, str) and reason and all(record.get(name) is None for name in targets):
        target: object = None
    elif "+" in target_field:
        target = {part: _require_field(record, (part,), place) for part in targets}
    else:
        target = _require_field(record, targets, place)
    given_id = record.get("id")
    if given_id is not None and not (isinstance(given_id, str | int) and str(given_id).strip()):
        raise InputError(f"{place}: field 'id': must be a text or a whole number")
    return Item(
        id=default_id if given_id is None else canonical(str(given_id)),
        input=question,
        target=target,
        choices=_read_choices(record.get("choices"), place),
        metadata=metadata,
    )


def _read_record(
    record: Mapping[str, Any],
    place: str,
    *,
    input_field: str,
    target_fields: tuple[str, ...],
) -> Mapping[str, Any]:
    """Returns the record with an input text and a target that scorers accept.

    Raises InputError for an assertion as target.
    """
    fields = dict(record)
    if isinstance(fields.get("messages"), list):
        split_conversation(fields, input_field, target_fields[0])
    question = fields.get(input_field)
    metadata = fields.get("metadata")
    if isinstance(question, list) and isinstance(metadata or {}, dict):
        fields["metadata"] = {**(metadata or {}), "messages": question}
        fields[input_field] = _find_last_text(question) or json.dumps(
            question, ensure_ascii=False
        )
    elif isinstance(question, dict) and question:
        fields[input_field] = _find_only_text(question) or json.dumps(
            question, ensure_ascii=False
        )
        for name in target_fields:
            if isinstance(fields.get(name), dict):
                fields[name] = _find_only_text(fields[name]) or fields[name]
    _replace_choices(fields, target_fields)
    for name in target_fields:
        if isinstance(fields.get(name), str):
            fields[name] = _strip_assertion(fields[name], place, name)
    return fields


def split_conversation(
    record: dict[str, Any],
    input_field: str,
    target_field: str,
) -> None:
    """Splits a conversation, as for fine-tuning, into the input and the last answer, unless
    the record has an input.
    """
    if input_field in record:
        return
    *earlier_messages, last = record["messages"] or [None]
    if earlier_messages and isinstance(last, dict) and last.get("role") == "assistant":
        record[input_field] = earlier_messages
        record.setdefault(target_field, last.get("content"))


def _find_last_text(messages: list[Any]) -> str:
    texts = (
        message.get("content") for message in reversed(messages) if isinstance(message, dict)
    )
    return next(
        (text for text in texts if isinstance(text, str) and text.strip()),
        "",
    )


def _find_only_text(value: Mapping[str, Any]) -> str:
    texts = [*value.values()]
    return texts[0] if len(texts) == 1 and isinstance(texts[0], str) else ""


def _replace_choices(record: dict[str, Any], target_fields: tuple[str, ...]) -> None:
    """Replaces choices with labels, as ARC has them, by their texts, and the target's label by
    its letter.
    """
    choices = record.get("choices")
    if not isinstance(choices, dict):
        return
    texts = choices.get("text")
    labels = choices.get("label")
    if not isinstance(texts, list) or not isinstance(labels, list):
        return
    record["choices"] = texts
    for name in target_fields:
        if record.get(name) in labels[: len(_LETTERS)]:
            record[name] = _LETTERS[labels.index(record[name])]


def _strip_assertion(
    target: str,
    place: str,
    name: str,
) -> str:
    """Returns the target, or the value of promptfoo's `equals: VALUE`.

    Raises InputError for another assertion, because a scorer would compare it as a text.
    """
    match = _ASSERTION.fullmatch(target.strip())
    if match is None or (match["value"] is None and match["kind"] not in _VALUELESS):
        return target
    if match["kind"] == "equals":
        return str(match["value"])
    raise InputError(
        f"{place}: field {name!r}: {target[:60]!r} is promptfoo's assertion {match['kind']}, "
        "not a right answer; choose a scorer with that check, and write only the answer"
    )


def _require_field(
    record: Mapping[str, Any],
    names: tuple[str, ...],
    place: str,
) -> Any:
    for name in names:
        if record.get(name) is not None:
            return record[name]
    fields = " or ".join(repr(name) for name in names)
    present = ", ".join(sorted(record)) or "none"
    raise InputError(f"{place}: field {fields}: missing or empty; fields here: {present}")


def _read_choices(value: object, place: str) -> tuple[str, ...]:
    """Reads the choices of an item. Raises InputError for fewer than two."""
    if value is None:
        return ()
    if (
        not isinstance(value, list)
        or len(value) < 2
        or not all(isinstance(choice, str) and choice for choice in value)
    ):
        raise InputError(
            f'{place}: field \'choices\': must be a list of two texts or more: ["red", "blue"]'
        )
    return tuple(value)


def _read_metadata(value: object, place: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{place}: field 'metadata': must be a JSON object {{…}}")
    return value


MIN_REFERENCES: Final = 10  # with fewer, the interval is too wide


@dataclass(frozen=True, slots=True)
class Reference:
    """An answer that people scored. score: from 0 to 1."""

    item: Item
    answer: str
    score: float


def load_references(path: Path) -> tuple[Reference, ...]:
    """Loads a judge's references. Raises InputError for a faulty reference, and for fewer than
    `MIN_REFERENCES`.
    """
    references = []
    for item in load_items(path, name="reference", target_field="answer+score"):
        fields = item.target
        score = fields["score"] if isinstance(fields, dict) else None
        answer = fields["answer"] if isinstance(fields, dict) else None
        number = _parse_share(score)
        if not isinstance(answer, str) or number is None:
            raise InputError(
                f"{path}: item {item.id!r}: a reference needs `answer`, a text, and `score`, a "
                "number from 0 to 1"
            )
        judged_item = replace(item, target=item.metadata.get("target", ""))
        references.append(Reference(judged_item, answer, number))
    if len(references) < MIN_REFERENCES:
        raise InputError(
            f"{path}: {len(references)} references; agreement needs {MIN_REFERENCES} or more"
        )
    return tuple(references)


def _parse_share(score: object) -> float | None:
    """Reads a number from 0 to 1, also from the text of a CSV cell."""
    try:
        number = float(score) if isinstance(score, int | float | str) else math.nan
    except ValueError:
        return None
    return number if 0 <= number <= 1 else None
