"""Reads the labels that people gave in another tool: corrections, categories, and approvals of
a model's answer.

Shapes: Langfuse's `scores` (a list; `source: ANNOTATION` marks people), LangSmith's `feedback`
(a list; `feedback_source.type: app` marks people), Braintrust's `scores` (a mapping), and a
column for each score, as tables have them.

Scores of models and programs give no label, unless the user names them: a suite would then
measure agreement with them.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from evals.scorers import find_scorer
from evals.suites.items import DECODER
from evals.suites.source_records import SourceRecord
from harness.frame.canonical_text import canonical
from harness.frame.configuration.config_conversion import ConversionNote, ConversionOutcome
from harness.frame.errors import InputError
from harness.frame.formatting import format_quantity
from harness.routing.similar_texts import UNSPACED, shingles

SCORE_FIELDS: Final = ("scores", "feedback")
_BEST_SCORE: Final = 1.0  # the best score of a scale from 0 to 1
_BY_PEOPLE: Final = ("ANNOTATION", "APP")
_UNNAMED: Final = (
    "the file does not mark the score as a person's; if it is, name it by --human-score"
)
_OTHER: Final = "not the score that --human-score names"


# Scorers whose right answer is one of a few short texts.
_LABEL_SCORERS: Final = ("label", "choice")
_LABEL_WORDS: Final = 5  # a longer text is free text
# A label with this share of its runs of three words in the answer has the answer's wording.
_REPEATED: Final = 0.5
# Why a drawn record has no label.
WITHOUT_LABEL: Final = "a drawn record"
NO_EXACT_TARGET: Final = "an approved free text is no exact target"


def accepts_approved(scorer: str, answer: object) -> bool:
    """Tells whether a scorer may use a model's own answer as the right answer.

    A judge may, as its reference; and the scorers of labels and choices, for a short text. As
    an exact target, an approved free text favours the model that wrote it: another model
    answers as well in other words.
    """
    if find_scorer(scorer).judged is not None:
        return True
    return scorer in _LABEL_SCORERS and not is_free_text(answer)


def is_free_text(answer: object) -> bool:
    """Tells whether an answer is not a short text, as labels and choices are."""
    if not isinstance(answer, str):
        return True
    # Two characters of a script without spaces are about a word.
    unspaced = len(UNSPACED.findall(answer))
    return len(answer.split()) > _LABEL_WORDS or unspaced > 2 * _LABEL_WORDS


def repeats_answer(label: object, answer: object) -> bool:
    """Tells whether a free text of the label repeats, or nearly repeats, a text of the answer.

    Both may be texts, messages, or objects with texts, such as a tool call's arguments. Case
    and punctuation do not matter.
    """
    answer_texts = [text for text in _list_texts(answer) if is_free_text(text)]
    return any(
        _nearly_repeats(text, other)
        for text in _list_texts(label)
        if is_free_text(text)
        for other in answer_texts
    )


def _nearly_repeats(text: str, other: str) -> bool:
    label_shingles, answer_shingles = (
        shingles(_strip_punctuation(part)) for part in (text, other)
    )
    return len(label_shingles & answer_shingles) >= _REPEATED * len(label_shingles)


def _list_texts(value: object) -> Iterator[str]:
    """Yields all texts of a JSON value. A text that is JSON itself has its own texts."""
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _list_texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _list_texts(part)
    elif isinstance(value, str):
        try:
            inner = DECODER.decode(value) if value.lstrip()[:1] in ("{", "[") else None
        except (ValueError, RecursionError):
            inner = None
        yield from (value,) if inner is None else _list_texts(inner)


def _strip_punctuation(text: str) -> str:
    characters = (char if unicodedata.category(char)[0] in "LMN" else " " for char in text)
    return "".join(characters)


@dataclass(frozen=True, slots=True)
class HumanScore:
    """A score of one record. corrects: the value is the right answer itself."""

    name: str
    value: object  # a number, a category, or the corrected answer
    corrects: bool = False
    left: str = ""  # the reason why the score gives no label


@dataclass
class HumanLabels:
    """Finds a record's label, and counts the outcome of each score.

    wanted: the only score that gives labels; empty for all scores that a tool marks as a
    person's.
    scorer: the suite's; it decides whether an approved answer can be a label.
    """

    wanted: str = ""
    scorer: str = ""
    _off_scale: set[str] = field(default_factory=set)
    _outcomes: Counter[tuple[str, ConversionOutcome, str]] = field(default_factory=Counter)
    approved: int = 0  # answers that became labels
    too_free: int = 0  # approved free texts, which the scorer cannot use as a label
    _categories: dict[str, str] = field(default_factory=dict)  # score → its first place

    def learn_scales(self, records: Iterable[SourceRecord]) -> None:
        """Collects the scores with values outside 0 to 1: for them, 1 is not the best value."""
        for record in records:
            for score in self._read_scores(record.fields):
                value = score.value
                if isinstance(value, int | float) and not 0 <= value <= 1:
                    self._off_scale.add(score.name)

    def label(self, record: SourceRecord, answer: object) -> object:
        """Returns the label, or None.

        Args:
            answer: the model's answer, which a score may approve.

        Raises InputError for two corrections of an answer, or categories of two scores.
        """
        scores = []
        for score in self._read_scores(record.fields):
            if score.left:
                self._count(score.name, ConversionOutcome.LEFT, score.left)
            else:
                scores.append(score)
        corrections = [score for score in scores if score.corrects]
        if len({canonical(str(score.value)) for score in corrections}) > 1:
            raise InputError(
                f"{record.place}: people corrected this answer in two ways; keep one correction"
            )
        for score in corrections:
            self._count(
                score.name,
                ConversionOutcome.TAKEN,
                "a person's correction: the label",
            )
            return score.value
        for score in scores:
            if isinstance(score.value, str):
                return self._take_category(score, record.place)
        return self._take_approval(scores, answer)

    def _take_category(self, score: HumanScore, place: str) -> object:
        """Returns a person's category as the label. Raises InputError if two scores have
        categories.
        """
        self._categories.setdefault(score.name, place)
        if len(self._categories) > 1:
            (first, at), (second, _) = [*self._categories.items()][:2]
            raise InputError(
                f"{place}: people gave the categories {first!r} ({at}) and {second!r}; choose "
                f"the label, such as --human-score {first}"
            )
        text = "a person's category: the label"
        self._count(score.name, ConversionOutcome.CHANGED, text)
        return score.value

    def _take_approval(self, scores: Sequence[HumanScore], answer: object) -> object:
        """Returns the model's answer if a person gave it the best value in every score."""
        is_off_scale = any(score.name in self._off_scale for score in scores)
        is_best = (
            bool(scores)
            and not is_off_scale
            and all(score.value == _BEST_SCORE for score in scores)
        )
        has_no_answer = answer in (None, "", {}, [])
        needs_exact_target = not accepts_approved(self.scorer, answer)
        for score in scores:
            if is_best and not has_no_answer and not needs_exact_target:
                text = "a person's best score: the model's answer is the label"
                self._count(score.name, ConversionOutcome.CHANGED, text)
            else:
                reason = (
                    f"it approves free text, and scorer {self.scorer!r} needs an exact answer"
                )
                reason = "the record has no answer" if has_no_answer else reason
                reason = reason if is_best else "below the best score"
                reason = "its scale is not 0 to 1" if is_off_scale else reason
                self._count(
                    score.name,
                    ConversionOutcome.LEFT,
                    f"a person's score: {reason}",
                )
        is_label = is_best and not has_no_answer and not needs_exact_target
        self.approved += is_label
        self.too_free += is_best and not has_no_answer and needs_exact_target
        return answer if is_label else None

    def _read_scores(self, fields: Mapping[str, Any]) -> Iterator[HumanScore]:
        for name in SCORE_FIELDS:
            scores = fields.get(name)
            if isinstance(scores, Mapping):
                for score, value in scores.items():
                    yield from self._read_named(score, value)
            for score in scores if isinstance(scores, list) else ():
                if isinstance(score, Mapping):
                    yield from self._read_listed(score)
        if self.wanted in fields:
            yield from self._read_named(self.wanted, fields[self.wanted])

    def _read_listed(self, score: Mapping[str, Any]) -> Iterator[HumanScore]:
        """Reads a score of a list, as Langfuse and LangSmith have them."""
        name = str(score.get("name") or score.get("key") or "score")
        source = score.get("source") or score.get("feedback_source")
        source = source.get("type") if isinstance(source, Mapping) else source
        is_human = str(source).upper() in _BY_PEOPLE
        left = "" if is_human else f"its source is {source}, not a person"
        if self.wanted:
            left = "" if name == self.wanted else _OTHER
        correction = score.get("correction")
        kind = str(score.get("dataType") or score.get("data_type") or "").upper()
        text = score.get("stringValue") or score.get("string_value")
        if kind == "CORRECTION":
            correction = correction or text or score.get("value")
        if correction not in (None, "", {}):
            yield HumanScore(
                name,
                correction,
                corrects=True,
                left=left,
            )
            return
        values = [score.get(part) for part in ("score", "value")]
        value = next((value for value in values if value is not None), None)
        value = text if kind == "CATEGORICAL" and text else value
        plain = str(value) if kind == "CATEGORICAL" and value else _parse_value(value)
        if plain is not None:
            yield HumanScore(name, plain, left=left)

    def _read_named(self, name: str, value: object) -> Iterator[HumanScore]:
        """Reads a score that has only a name and a value. It counts only if the user
        named it.
        """
        left = _UNNAMED if not self.wanted else "" if name == self.wanted else _OTHER
        if (plain := _parse_value(value)) is not None:
            yield HumanScore(name, plain, left=left)

    @property
    def has_scores(self) -> bool:
        return bool(self._outcomes)

    def _count(
        self,
        name: str,
        outcome: ConversionOutcome,
        text: str,
    ) -> None:
        self._outcomes[name, outcome, text] += 1

    def notes(self, place: str) -> list[ConversionNote]:
        """Lists the outcome of each score, with its number of records."""
        notes = []
        for (name, outcome, text), number in sorted(self._outcomes.items()):
            count = format_quantity(number, "record")
            notes.append(ConversionNote(place, f"scores.{name}", outcome, f"{text}, {count}"))
        return notes


def _parse_value(value: object) -> object:
    """Reads a score or a cell: a number, True, False or a category; None for anything else."""
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if not isinstance(value, str):
        return value if isinstance(value, bool | int | float) else None
    text = value.strip()
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError:
        return text or None
