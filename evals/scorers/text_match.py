"""The scorers `exact` and `regex` compare an answer with a text or a regular expression."""

from evals.scorers.interface import (
    EMPTY_ANSWER,
    UNSCORED,
    Options,
    Scorer,
    ScoreResult,
    right_or_wrong,
    written,
)
from evals.scorers.unwrap import non_blank_lines, unwrap_layers
from evals.suites.items import Item
from harness.domain.bounded_regex import BoundedPattern
from harness.domain.errors import InputError, PatternTooSlow


def folded(text: str) -> str:
    return " ".join(text.casefold().split())


def exact(answer: str, item: Item, options: Options) -> ScoreResult:
    """A list as target means: any of these."""
    if not answer.strip():
        return EMPTY_ANSWER
    targets = item.target if isinstance(item.target, list) else [item.target]
    accepted = {written(target).strip() for target in targets}
    forgiven = {folded(target) for target in accepted}
    if options["ignore_case"]:
        strict = answer.strip().casefold() in {target.casefold() for target in accepted}
    else:
        strict = answer.strip() in accepted
    if strict:
        return right_or_wrong(strict=True, lenient=True)
    if folded(answer) in forgiven:
        return right_or_wrong(strict=False, lenient=True, rule="case")
    for rule, text in unwrap_layers(answer):
        if folded(text) in forgiven:
            return right_or_wrong(strict=False, lenient=True, rule=rule)
    lines = non_blank_lines(answer)
    for rule, line in (("leading_prose", lines[-1]), ("trailing_prose", lines[0])):
        if {folded(line), *(folded(text) for _, text in unwrap_layers(line))} & forgiven:
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
    """Scores by a regular expression. strict: the whole answer matches. lenient: a part of it
    does.

    An answer that the expression takes too long for has no score, which never speaks for it.
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
