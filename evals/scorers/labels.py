"""The scorers `label` and `choice` compare an answer with a set of labels or options."""

import re
from collections.abc import Iterable, Sequence
from string import ascii_uppercase

from evals.scorers.interface import Options, Scorer, ScoreResult, right_or_wrong, unreadable
from evals.scorers.unwrap import non_blank_lines, unwrap_layers
from evals.suites.items import Item
from harness.domain.errors import InputError


def folded(label: str) -> str:
    """Spelling that does not matter to a reader: case, and _ or - for a space."""
    return " ".join(re.split(r"[\s_-]+", label.strip().casefold()))


def mentioned(text: str, labels: Iterable[str]) -> set[str]:
    """The labels (folded) in the text as whole words; the longest wins where two overlap."""
    known = sorted({folded(label) for label in labels} - {""}, key=len, reverse=True)
    if not known:
        return set()
    words = "|".join(re.escape(label) for label in known)
    return set(re.findall(rf"(?<!\w)(?:{words})(?!\w)", folded(text)))


def label(answer: str, item: Item, options: Options) -> ScoreResult:
    """Scores a label. strict: that alone. lenient: the only one that is mentioned."""
    target = str(item.target).strip()
    if answer.strip() == target:
        return right_or_wrong(strict=True, lenient=True)
    found = mentioned(answer, [*options["labels"], target])
    if not found:
        return unreadable(answer, "no_label")
    if found != {folded(target)}:
        return right_or_wrong(strict=False, lenient=False)
    layers = [("case", answer), *unwrap_layers(answer)]
    rule = next((rule for rule, text in layers if folded(text) == folded(target)), "")
    return right_or_wrong(strict=False, lenient=True, rule=rule or "label_with_extra_text")


def check_label(item: Item, options: Options) -> str | None:
    labels = options["labels"]
    if not isinstance(item.target, str) or item.target not in labels:
        raise InputError(f"item {item.id!r}: target {item.target!r} is none of {labels}")
    return None


def all_targets(items: Sequence[Item], options: Options) -> Options:
    """Takes every target of the suite as a label where no list of labels is given."""
    labels = options["labels"] or sorted({str(item.target) for item in items})
    if not isinstance(labels, list) or not all(isinstance(name, str) for name in labels):
        raise InputError("scorer 'label': option 'labels' must be a list of texts")
    return {**options, "labels": labels}


def letter_of(item: Item) -> str:
    """Returns the right choice's letter; a target is a letter, a place from 0, or a text."""
    target = item.target
    if isinstance(target, int) and not isinstance(target, bool) and 0 <= target < 26:
        return ascii_uppercase[target]
    text = str(target).strip()
    if text in item.choices:
        return ascii_uppercase[item.choices.index(text)]
    return text.upper()


def chosen(text: str, item: Item) -> str | None:
    letters = ascii_uppercase[: max(len(item.choices), 2)]
    said = re.findall(
        rf"(?i:answer|choice|option)(?i:\s++is)?+[\s:=*(\[]*+([{letters}])\b", text
    )
    alone = re.findall(rf"(?<![\w'])([{letters}])(?:[)\].:*]|\s*$)", text, re.MULTILINE)
    for letters_meant in (said, alone):
        if letters_meant:
            return str(letters_meant[-1])
    named = [
        n for n, label in enumerate(item.choices) if label and folded(label) in folded(text)
    ]
    return ascii_uppercase[named[0]] if len(named) == 1 else None


def choice(answer: str, item: Item, options: Options) -> ScoreResult:
    """Scores a choice. strict: the letter, after final_line. lenient: the letter meant."""
    right, final_line = letter_of(item), options["final_line"]
    lines = non_blank_lines(answer)
    last = lines[-1] if lines else ""
    if final_line and last.startswith(final_line):
        strict: str | None = last.removeprefix(final_line).strip()
    else:
        strict = None if final_line else answer.strip()
    if strict == right:
        return right_or_wrong(strict=True, lenient=True)
    letter = chosen(answer.replace("**", ""), item)
    if letter is None:
        return unreadable(answer, "no_choice")
    rule = "no_final_line" if final_line else "label_with_extra_text"
    return right_or_wrong(strict=False, lenient=letter == right, rule=rule)


def check_choice(item: Item, _options: Options) -> str | None:
    if not item.choices:
        raise InputError(f"item {item.id!r}: scorer 'choice' needs the field 'choices'")
    if letter_of(item) not in ascii_uppercase[: len(item.choices)]:
        raise InputError(f"item {item.id!r}: target {item.target!r} is none of its choices")
    return None


LABEL = Scorer("label", label, {"labels": []}, check=check_label, complete=all_targets)
CHOICE = Scorer("choice", choice, {"final_line": ""}, check=check_choice)
