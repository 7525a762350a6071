"""The scorers of short answers: `exact`, `regex`, `numeric`, `label` and `choice`."""

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from string import ascii_uppercase
from typing import Final

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
from evals.scorers.numbers import (
    COMMA,
    POINT,
    first_number,
    is_ambiguous,
    last_number,
    read_number,
    shown_decimal_sign,
)
from evals.scorers.typography import fold_case, fold_label, mentioned, plain_typography
from evals.scorers.unwrap import non_blank_lines, unwrap_layers
from evals.suites.items import Item
from harness.frame.canonical_text import canonical
from harness.frame.errors import InputError, PatternTooSlow
from harness.frame.matching import BoundedPattern


def exact(answer: str, item: Item, options: Options) -> ScoreResult:
    """Compares texts. If the target is a list, each of its texts is right."""
    if not answer.strip():
        return EMPTY_ANSWER
    answer = canonical(answer)
    accepted = {written(target).strip() for target in _accepted(item)}
    forgiven = {fold_case(target) for target in accepted}
    if options["ignore_case"]:
        strict = answer.strip().casefold() in {target.casefold() for target in accepted}
    else:
        strict = answer.strip() in accepted
    if strict:
        return right_or_wrong(strict=True, lenient=True)
    if fold_case(answer) in forgiven:
        rule = _form_rule(answer, accepted)
        return right_or_wrong(strict=False, lenient=True, rule=rule)
    for rule, text in unwrap_layers(answer):
        if fold_case(text) in forgiven:
            return right_or_wrong(strict=False, lenient=True, rule=rule)
    lines = non_blank_lines(answer)
    for rule, line in (("leading_prose", lines[-1]), ("trailing_prose", lines[0])):
        if {fold_case(line), *(fold_case(text) for _, text in unwrap_layers(line))} & forgiven:
            return right_or_wrong(strict=False, lenient=True, rule=rule)
    return right_or_wrong(strict=False, lenient=False)


def _accepted(item: Item) -> list[object]:
    return item.target if isinstance(item.target, list) else [item.target]


def _form_rule(answer: str, accepted: Iterable[str]) -> str:
    """Returns the rule that an answer breaks which is right when folded."""
    plain = plain_typography(answer).strip()
    by_typography = any(plain == plain_typography(target) for target in accepted)
    return "typography" if by_typography else "case"


def _pattern(item: Item, options: Options) -> BoundedPattern:
    pattern = canonical(options["pattern"]) or written(item.target)
    return BoundedPattern(pattern, options["ignore_case"])


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
        return _matched(canonical(answer), _pattern(item, options))
    except PatternTooSlow:
        return UNSCORED


def _matched(answer: str, pattern: BoundedPattern) -> ScoreResult:
    strict = pattern.matches_whole(answer.strip())
    if strict:
        return right_or_wrong(strict=True, lenient=True)
    if not pattern.matches_in(answer):
        plain = plain_typography(answer)
        found = plain != answer and pattern.matches_in(plain)
        return right_or_wrong(strict=False, lenient=found, rule="typography")
    for rule, text in unwrap_layers(answer):
        if pattern.matches_whole(text):
            return right_or_wrong(strict=False, lenient=True, rule=rule)
    return right_or_wrong(strict=False, lenient=True, rule="extra_text")


def score_each_text(item: Item, options: Options) -> ScoreResult:
    """Scores each accepted text of the target, and returns the lowest score."""
    scores = [exact(written(target), item, options) for target in _accepted(item)]
    return min(scores, key=lambda score: score.strict or 0.0, default=EMPTY_ANSWER)


def score_example(item: Item, options: Options) -> ScoreResult | None:
    """Scores the target if the option `pattern` makes it an answer instead of a pattern."""
    return regex(written(item.target), item, options) if options["pattern"] else None


EXACT = Scorer("exact", exact, {"ignore_case": False}, target_score=score_each_text)
REGEX = Scorer(
    "regex",
    regex,
    {"pattern": "", "ignore_case": False},
    check=check_regex,
    target_score=score_example,
)


def decimal_sign(options: Options) -> str:
    """Returns the sign by which a number with two readings is read."""
    return COMMA if options.get("decimal_sign") == COMMA else POINT


def strict_number(answer: str, options: Options) -> Decimal | None:
    """Returns the number in the demanded form, or None in another form."""
    lines = non_blank_lines(answer)
    final_line = options["final_line"]
    if not final_line:
        return last_number(answer, decimal_sign(options))
    if not lines or not lines[-1].startswith(final_line):
        return None
    return read_number(lines[-1].removeprefix(final_line).strip(), decimal_sign(options))


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


def lenient_number(answer: str, options: Options) -> Decimal | None:
    """Returns the number after the last `final_line` text, else the answer's last number."""
    final_line = options["final_line"]
    sign = decimal_sign(options)
    if final_line:
        after = re.split(re.escape(final_line.rstrip(": ")), answer, flags=re.IGNORECASE)
        found = first_number(after[-1].replace("*", " "), sign) if len(after) > 1 else None
        if found is not None:
            return found
    return last_number(answer.replace("*", " "), sign)


def target_number(item: Item, options: Options) -> Decimal | None:
    """Reads the target: a JSON number by itself, a text by the suite's decimal sign."""
    sign = POINT if isinstance(item.target, int | float) else decimal_sign(options)
    return read_number(target_text(item), sign)


def target_text(item: Item) -> str:
    return str(item.target).strip().removesuffix(".")


def numeric(answer: str, item: Item, options: Options) -> ScoreResult:
    """Scores a number. tolerance: the allowed difference, in units of the number."""
    target = target_number(item, options)
    given = lenient_number(answer, options)
    strict = strict_number(answer, options)
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


BOTH_SIGNS: Final = "both"


def find_decimal_sign(items: Sequence[Item], options: Options) -> Options:
    """Fills in the decimal sign that the suite's targets show; a point if they show none."""
    sign = options["decimal_sign"]
    if sign not in ("", POINT, COMMA):
        raise InputError(f"scorer 'numeric': option 'decimal_sign' is '.' or ',', not {sign!r}")
    shown = {shown_decimal_sign(i.target) for i in items if isinstance(i.target, str)} - {""}
    found = BOTH_SIGNS if len(shown) > 1 else next(iter(shown), POINT)
    return {**options, "decimal_sign": sign or found}


def check_number(item: Item, options: Options) -> str | None:
    tolerance = options["tolerance"]
    if not isinstance(tolerance, int | float) or not 0 <= tolerance < float("inf"):
        raise InputError("scorer 'numeric': option 'tolerance' must be a number from 0 up")
    value = None if isinstance(item.target, bool) else target_number(item, options)
    if value is None or not value.is_finite():
        raise InputError(f"item {item.id!r}: target {item.target!r} is not a number")
    if (
        options["decimal_sign"] == BOTH_SIGNS
        and isinstance(item.target, str)
        and is_ambiguous(item.target)
    ):
        raise InputError(
            f"item {item.id!r}: target {item.target!r} has two readings, and other targets of "
            "the suite show both decimal signs; write it without a sign that groups digits, or "
            "set the option decimal_sign to '.' or ','"
        )
    return None


NUMERIC = Scorer(
    "numeric",
    numeric,
    {"tolerance": 1e-6, "final_line": "", "decimal_sign": ""},
    check=check_number,
    complete=find_decimal_sign,
    target_score=lambda item, options: numeric(
        f"{options['final_line']} {target_text(item)}".strip(), item, options
    ),
)


def label(answer: str, item: Item, options: Options) -> ScoreResult:
    """Scores a label. strict: only the label. lenient: the only label in the answer."""
    answer = canonical(answer)
    target = canonical(str(item.target)).strip()
    if answer.strip() == target:
        return right_or_wrong(strict=True, lenient=True)
    found = mentioned(answer, [*options["labels"], target])
    if not found:
        return unreadable(answer, "no_label")
    if found != {fold_label(target)}:
        return right_or_wrong(strict=False, lenient=False)
    layers = [(_form_rule(answer, [target]), answer), *unwrap_layers(answer)]
    rule = next((rule for rule, text in layers if fold_label(text) == fold_label(target)), "")
    return right_or_wrong(strict=False, lenient=True, rule=rule or "label_with_extra_text")


def check_label(item: Item, options: Options) -> str | None:
    labels = options["labels"]
    known = map(canonical, labels)
    if not isinstance(item.target, str) or canonical(item.target) not in known:
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
    text = canonical(str(target)).strip()
    choices = [canonical(choice) for choice in item.choices]
    if text in choices:
        return ascii_uppercase[choices.index(text)]
    return text.upper()


def chosen(text: str, item: Item) -> str | None:
    text = plain_typography(text)
    letters = ascii_uppercase[: max(len(item.choices), 2)]
    stated = re.findall(
        rf"(?i:answer|choice|option)(?i:\s++is)?+[\s:=*(\[]*+([{letters}])\b", text
    )
    alone = re.findall(rf"(?<![\w'])([{letters}])(?:[)\].:*]|\s*$)", text, re.MULTILINE)
    for mentions in (stated, alone):
        if mentions:
            return str(mentions[-1])
    found = mentioned(text, item.choices)
    named = [n for n, name in enumerate(item.choices) if fold_label(name) in found]
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


LABEL = Scorer(
    "label",
    label,
    {"labels": []},
    check=check_label,
    complete=all_targets,
    target_score=lambda item, options: label(str(item.target), item, options),
)
CHOICE = Scorer(
    "choice",
    choice,
    {"final_line": ""},
    check=check_choice,
    target_score=lambda item, options: choice(
        f"{options['final_line']} {letter_of(item)}".strip(), item, options
    ),
)
