"""The scorers of short answers: `exact`, `regex`, `numeric`, `label` and `choice`."""

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from string import ascii_uppercase

from evals.scorers.interface import (
    EMPTY_ANSWER,
    UNSCORED,
    Options,
    Scorer,
    ScoreResult,
    right_or_wrong,
    unreadable,
    written,
)
from evals.scorers.unwrap import non_blank_lines, unwrap_layers
from evals.suites.items import Item
from harness.frame.errors import InputError, PatternTooSlow
from harness.frame.matching import BoundedPattern


def fold_case(text: str) -> str:
    return " ".join(text.casefold().split())


def exact(answer: str, item: Item, options: Options) -> ScoreResult:
    """Compares texts. If the target is a list, each of its texts is right."""
    if not answer.strip():
        return EMPTY_ANSWER
    targets = item.target if isinstance(item.target, list) else [item.target]
    accepted = {written(target).strip() for target in targets}
    forgiven = {fold_case(target) for target in accepted}
    if options["ignore_case"]:
        strict = answer.strip().casefold() in {target.casefold() for target in accepted}
    else:
        strict = answer.strip() in accepted
    if strict:
        return right_or_wrong(strict=True, lenient=True)
    if fold_case(answer) in forgiven:
        return right_or_wrong(strict=False, lenient=True, rule="case")
    for rule, text in unwrap_layers(answer):
        if fold_case(text) in forgiven:
            return right_or_wrong(strict=False, lenient=True, rule=rule)
    lines = non_blank_lines(answer)
    for rule, line in (("leading_prose", lines[-1]), ("trailing_prose", lines[0])):
        if {fold_case(line), *(fold_case(text) for _, text in unwrap_layers(line))} & forgiven:
            return right_or_wrong(strict=False, lenient=True, rule=rule)
    return right_or_wrong(strict=False, lenient=False)


def _pattern(item: Item, options: Options) -> BoundedPattern:
    return BoundedPattern(options["pattern"] or written(item.target), options["ignore_case"])


def check_regex(item: Item, options: Options) -> str | None:
    try:
        _pattern(item, options)
    except InputError as error:
        raise InputError(f"item {item.id!r}: not a regular expression: {error}") from None
    return None


def regex(answer: str, item: Item, options: Options) -> ScoreResult:
    """Scores by a regular expression. strict: it matches the whole answer. lenient: a part.

    An answer for which the expression is too slow has no score.
    """
    if not answer.strip():
        return EMPTY_ANSWER
    try:
        return _matched(answer, _pattern(item, options))
    except PatternTooSlow:
        return UNSCORED


def _matched(answer: str, pattern: BoundedPattern) -> ScoreResult:
    strict = pattern.matches_whole(answer.strip())
    if strict or not pattern.matches_in(answer):
        return right_or_wrong(strict=strict, lenient=strict)
    for rule, text in unwrap_layers(answer):
        if pattern.matches_whole(text):
            return right_or_wrong(strict=False, lenient=True, rule=rule)
    return right_or_wrong(strict=False, lenient=True, rule="extra_text")


EXACT = Scorer("exact", exact, {"ignore_case": False})
REGEX = Scorer("regex", regex, {"pattern": "", "ignore_case": False}, check=check_regex)


# Commas may separate thousands. A point or comma at a sentence's end is not part of a number.
NUMBER = r"[-+−]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|[-+−]?\.[0-9]+"
IN_PROSE = re.compile(rf"(?<![\w.,])[$€£]?({NUMBER})(?![0-9])")
# A minus sign after a number subtracts: the last number of 5-3 is 3.
SUBTRACTED = re.compile(r"(?<=[0-9])\s*[-−](?=[0-9])")


def number(text: str) -> Decimal | None:
    try:
        return Decimal(text.replace(",", "").replace("−", "-"))
    except InvalidOperation:
        return None


def last_number(text: str) -> Decimal | None:
    found = IN_PROSE.findall(SUBTRACTED.sub(" - ", text))
    return number(found[-1]) if found else None


def strict_number(answer: str, final_line: str) -> Decimal | None:
    """Returns the number in the demanded form, or None in another form."""
    lines = non_blank_lines(answer)
    if not final_line:
        return last_number(answer)
    kept = re.fullmatch(rf"{re.escape(final_line)}\s*({NUMBER})", lines[-1]) if lines else None
    return number(kept[1]) if kept else None


def broken_rule(answer: str, final_line: str) -> str:
    at = [
        n
        for n, line in enumerate(non_blank_lines(answer))
        if final_line.casefold() in line.casefold()
    ]
    if not at:
        return "no_final_line"
    if at[-1] < len(non_blank_lines(answer)) - 1:
        return "trailing_prose"
    line = non_blank_lines(answer)[-1]
    if re.search(r"[*_`#]", line):
        return "markup"
    return "final_line_form"


def lenient_number(answer: str, final_line: str) -> Decimal | None:
    """Returns the number after the last `final_line` text, else the answer's last number."""
    if final_line:
        after = re.split(re.escape(final_line.rstrip(": ")), answer, flags=re.IGNORECASE)
        found = IN_PROSE.search(after[-1].replace("*", " ")) if len(after) > 1 else None
        if found:
            return number(found[1])
    return last_number(answer.replace("*", " "))


def numeric(answer: str, item: Item, options: Options) -> ScoreResult:
    """Scores a number. tolerance: the allowed difference, in units of the number."""
    target = number(str(item.target).strip())
    given = lenient_number(answer, options["final_line"])
    strict = strict_number(answer, options["final_line"])
    if target is None:
        return UNSCORED
    if given is None and strict is None:
        return unreadable(answer, "no_number")
    tolerance = Decimal(str(options["tolerance"]))

    def right(value: Decimal | None) -> bool:
        return value is not None and abs(value - target) <= tolerance

    return right_or_wrong(
        strict=right(strict),
        lenient=right(given),
        rule=broken_rule(answer, options["final_line"]),
    )


def check_number(item: Item, options: Options) -> str | None:
    tolerance = options["tolerance"]
    if not isinstance(tolerance, int | float) or not 0 <= tolerance < float("inf"):
        raise InputError("scorer 'numeric': option 'tolerance' must be a number from 0 up")
    value = number(str(item.target).strip())
    if isinstance(item.target, bool) or value is None or not value.is_finite():
        raise InputError(f"item {item.id!r}: target {item.target!r} is not a number")
    return None


NUMERIC = Scorer("numeric", numeric, {"tolerance": 1e-6, "final_line": ""}, check=check_number)


def fold_label(label: str) -> str:
    return " ".join(re.split(r"[\s_-]+", label.strip().casefold()))


def mentioned(text: str, labels: Iterable[str]) -> set[str]:
    """Finds labels as whole words, folded. Of overlapping labels the longest counts."""
    known = sorted({fold_label(label) for label in labels} - {""}, key=len, reverse=True)
    if not known:
        return set()
    words = "|".join(re.escape(label) for label in known)
    return set(re.findall(rf"(?<!\w)(?:{words})(?!\w)", fold_label(text)))


def label(answer: str, item: Item, options: Options) -> ScoreResult:
    """Scores a label. strict: only the label. lenient: the only label in the answer."""
    target = str(item.target).strip()
    if answer.strip() == target:
        return right_or_wrong(strict=True, lenient=True)
    found = mentioned(answer, [*options["labels"], target])
    if not found:
        return unreadable(answer, "no_label")
    if found != {fold_label(target)}:
        return right_or_wrong(strict=False, lenient=False)
    layers = [("case", answer), *unwrap_layers(answer)]
    rule = next((rule for rule, text in layers if fold_label(text) == fold_label(target)), "")
    return right_or_wrong(strict=False, lenient=True, rule=rule or "label_with_extra_text")


def check_label(item: Item, options: Options) -> str | None:
    labels = options["labels"]
    if not isinstance(item.target, str) or item.target not in labels:
        raise InputError(f"item {item.id!r}: target {item.target!r} is not one of {labels}")
    return None


def all_targets(items: Sequence[Item], options: Options) -> Options:
    """Makes every target of the suite a label if the option has no labels."""
    labels = options["labels"] or sorted({str(item.target) for item in items})
    if not isinstance(labels, list) or not all(isinstance(name, str) for name in labels):
        raise InputError("scorer 'label': option 'labels' must be a list of texts")
    return {**options, "labels": labels}


def letter_of(item: Item) -> str:
    """Returns the right choice's letter. A target is a letter, a place from 0, or a text."""
    target = item.target
    if isinstance(target, int) and not isinstance(target, bool) and 0 <= target < 26:
        return ascii_uppercase[target]
    text = str(target).strip()
    if text in item.choices:
        return ascii_uppercase[item.choices.index(text)]
    return text.upper()


def chosen(text: str, item: Item) -> str | None:
    letters = ascii_uppercase[: max(len(item.choices), 2)]
    stated = re.findall(
        rf"(?i:answer|choice|option)(?i:\s++is)?+[\s:=*(\[]*+([{letters}])\b", text
    )
    alone = re.findall(rf"(?<![\w'])([{letters}])(?:[)\].:*]|\s*$)", text, re.MULTILINE)
    for mentions in (stated, alone):
        if mentions:
            return str(mentions[-1])
    answered = fold_label(text)
    named = [n for n, name in enumerate(item.choices) if name and fold_label(name) in answered]
    return ascii_uppercase[named[0]] if len(named) == 1 else None


def choice(answer: str, item: Item, options: Options) -> ScoreResult:
    """Scores a choice. strict: the letter after final_line. lenient: the letter in the text."""
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
        raise InputError(f"item {item.id!r}: target {item.target!r} is not one of its choices")
    return None


LABEL = Scorer("label", label, {"labels": []}, check=check_label, complete=all_targets)
CHOICE = Scorer("choice", choice, {"final_line": ""}, check=check_choice)
