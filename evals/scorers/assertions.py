"""The scorers `assertions` and `judged_assertions` check an answer by promptfoo's assertions.

`metadata.assert` lists the assertions. Each has a weight; an item may have a threshold.
`judged_assertions` also supports `llm-rubric`, for which it asks the judge.

Source: promptfoo's documentation, "Deterministic metrics" and "Assertions & metrics".
"""

import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from string import whitespace
from typing import Any, Final

from evals.scorers.interface import (
    EMPTY_ANSWER,
    UNSCORED,
    AnswerJudge,
    Options,
    Scorer,
    ScoreResult,
    no_score,
    score_result,
)
from evals.scorers.json_fields import valid
from evals.scorers.judged import rubric
from evals.scorers.unwrap import unwrap_layers
from evals.suites.items import DECODER, Item
from harness.frame.canonical_text import canonical, canonical_value
from harness.frame.configuration.core_yaml import parse_core_yaml
from harness.frame.errors import InputError, PatternTooSlow, SchemaTooLarge
from harness.frame.matching import BoundedPattern, schema_fault
from harness.frame.suggestions import did_you_mean

NOT: Final = "not-"
RUBRIC: Final = "llm-rubric"
SET: Final = "assert-set"
_MOST_STEPS: Final = 4_000_000  # of `levenshtein`, about 1 s
_DISTANCE: Final = 5  # `levenshtein`'s default threshold
_MOST_OBJECTS: Final = 100  # opening braces at which the scorer looks for JSON
_MOST_CHARACTERS: Final = 100_000  # of an object in a text, as in promptfoo
# Of an object with faults, and of all of them: YAML's time grows with the square of the depth.
_MOST_FAULTY, _MOST_FAULTY_IN_ALL = 5_000, 50_000
Assertion = Mapping[str, Any]
# Returns whether an assertion with (value, threshold) holds for an answer.
Check = Callable[[str, Any, float | None], bool]


# A value between commas; a value in quotes may contain commas, and quotes as `\\"` or `""`.
_FIELD: Final = re.compile(r'[\s,]*(?:"((?:\\["\\]|""|[^"])*+)"\s*(?:,|\Z)|([^\s,"][^,]*))')
_QUOTE: Final = re.compile(r'\\(["\\])|"(")')


def _listed(value: object) -> list[str]:
    """Reads the values of `-any` and `-all`: a list, or a text with commas."""
    if isinstance(value, list):
        return [text_of(part) for part in value]
    text, found, at = text_of(value).rstrip(f"{whitespace},"), [], 0
    while at < len(text):
        if not (field := _FIELD.match(text, at)):
            raise InputError(f"{text[:60]!r} is not a list of values with commas")
        quoted, plain = field.groups()
        found.append(plain.strip() if quoted is None else _QUOTE.sub(r"\1\2", quoted))
        at = field.end()
    return found


def _json(answer: str) -> tuple[bool, Any]:
    try:
        return True, DECODER.decode(answer.strip())
    except (ValueError, RecursionError):
        return False, None


def _equals(answer: str, value: Any, _: float | None) -> bool:
    if not isinstance(value, dict | list):
        return answer == text_of(value)
    is_json, found = _json(answer)
    return is_json and _same(found, value)


def _same(one: object, other: object) -> bool:
    """Compares JSON values; unlike in Python, `true` differs from 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def text_of(value: object) -> str:
    """Writes a value as JavaScript does: `true`, and 14 for 14.0."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def _units(text: str) -> str:
    """Returns the UTF-16 units, as promptfoo counts: two for a character beyond U+FFFF."""
    if text.isascii():
        return text
    return "".join(map(chr, array("H", text.encode("utf-16", "surrogatepass"))[1:]))


def _is_json(answer: str, value: Any, _: float | None) -> bool:
    is_json, found = _json(answer)
    return is_json and (value in (None, "") or valid(found, value))


def _contains_json(answer: str, value: Any, _: float | None) -> bool:
    return any(value in (None, "") or valid(part, value) for part in _objects(answer))


_BRACE: Final = re.compile(r"[{}]")


def _objects(answer: str) -> Iterator[Any]:
    """Yields the objects in a text, as promptfoo finds them: it counts braces, closes open ones
    at the end, and reads YAML, so that JSON may have small faults.
    """
    at, left = answer.find("{"), _MOST_FAULTY_IN_ALL
    for _ in range(_MOST_OBJECTS):
        if at < 0:
            return
        end, missing = len(answer), 0
        for brace in _BRACE.finditer(answer, at, at + _MOST_CHARACTERS):
            missing += 1 if brace[0] == "{" else -1
            if not missing:
                end = brace.end()
                break
        part = answer[at : min(end, at + _MOST_CHARACTERS)] + "}" * missing
        is_json, found = _json(part)
        if not is_json and len(part) <= min(left, _MOST_FAULTY):
            left, found = left - len(part), _read_faulty(part)
        if found is not None:
            yield found
        at = answer.find("{", at + 1 if found is None else end)


def _read_faulty(text: str) -> Any:
    try:
        found = parse_core_yaml(text)
    except InputError:
        return None
    return found if isinstance(found, dict | list) else None


def _word_count(answer: str, value: Any, _: float | None) -> bool:
    count = len(answer.split())
    if not isinstance(value, dict):
        return count == float(value)
    return bool(value.get("min", 0) <= count <= value.get("max", count))


def _levenshtein(answer: str, value: Any, threshold: float | None) -> bool:
    most = _DISTANCE if threshold is None else threshold
    answer, target = _units(answer), _units(str(value))
    if abs(len(answer) - len(target)) > most:
        return False
    if len(answer) * len(target) > _MOST_STEPS:
        raise SchemaTooLarge("the texts are too long for levenshtein")
    row = [*range(len(target) + 1)]
    for at, letter in enumerate(answer, start=1):
        before, row[0] = row[0], at
        for place, target_letter in enumerate(target, start=1):
            changed = before + (letter != target_letter)
            before, row[place] = row[place], min(changed, row[place] + 1, row[place - 1] + 1)
        if min(row) > most:
            return False
    return bool(row[-1] <= most)


# In JavaScript `$` is the end alone, `\w`, `\d`, `\b` know ASCII alone, `\s` knows Unicode.
_SYNTAX: Final = re.compile(r"\\.|\[(?:\\.|[^\\\]])*+\]|\$", re.DOTALL)
_SPACES: Final = r"\s\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"


def _pattern(value: str) -> BoundedPattern:
    def translated(part: re.Match[str]) -> str:
        match part[0]:
            case "$":
                return r"\Z"
            case r"\s":
                return f"[{_SPACES}]"
            case r"\S":
                return f"[^{_SPACES}]"
            case text:
                return text.replace(r"\s", _SPACES) if text[0] == "[" else text

    return BoundedPattern("(?a)" + _SYNTAX.sub(translated, _units(value)))


def _regex(answer: str, value: Any, _: float | None) -> bool:
    return _pattern(str(value)).matches_in(_units(answer))


CHECKS: Final[Mapping[str, Check]] = {
    "equals": _equals,
    "contains": lambda answer, value, _: text_of(value) in answer,
    "icontains": lambda answer, value, _: text_of(value).lower() in answer.lower(),
    "contains-any": lambda answer, value, _: any(v in answer for v in _listed(value)),
    "contains-all": lambda answer, value, _: all(v in answer for v in _listed(value)),
    "icontains-any": lambda answer, value, _: any(
        v.lower() in answer.lower() for v in _listed(value)
    ),
    "icontains-all": lambda answer, value, _: all(
        v.lower() in answer.lower() for v in _listed(value)
    ),
    "starts-with": lambda answer, value, _: answer.startswith(text_of(value)),
    "ends-with": lambda answer, value, _: answer.endswith(text_of(value)),
    "regex": _regex,
    "is-json": _is_json,
    "contains-json": _contains_json,
    "levenshtein": _levenshtein,
    "word-count": _word_count,
}
_TEXTS: Final = ("starts-with", "ends-with", "levenshtein", "regex")
_WITHOUT_VALUE: Final = ("is-json", "contains-json")


@dataclass(frozen=True, slots=True)
class _Outcome:
    passed: bool
    score: float


def _combine(
    assertions: Sequence[Assertion], threshold: float | None, judged: Mapping[int, float]
) -> Callable[[str], _Outcome]:
    """Returns a function that checks an answer. judged: the judge's scores, by assertion id."""

    def outcome(answer: str) -> _Outcome:
        parts = [
            (float(check.get("weight", 1)), _weighed(answer, check, judged))
            for check in assertions
        ]
        total = sum(weight for weight, _ in parts)
        score = sum(weight * part.score for weight, part in parts) / total if total else 0.0
        passed = all(part.passed for _, part in parts)
        return _Outcome(passed if threshold is None else bool(score >= threshold), score)

    return outcome


def _weighed(answer: str, check: Assertion, judged: Mapping[int, float]) -> _Outcome:
    """Checks an assertion; one with the weight 0 always passes, but a set does not."""
    outcome = _single(answer, check, judged)
    free = check.get("weight") == 0 and check["type"] != SET
    return replace(outcome, passed=True) if free else outcome


def _single(answer: str, check: Assertion, judged: Mapping[int, float]) -> _Outcome:
    kind, threshold = str(check["type"]), check.get("threshold")
    if kind == SET:
        return _combine(check["assert"], threshold, judged)(answer)
    base = kind.removeprefix(NOT)
    if base == RUBRIC:
        score = judged[id(check)]
        passed = score >= (0.5 if threshold is None else threshold)
        return _Outcome(not passed, 1 - score) if kind != base else _Outcome(passed, score)
    passed = CHECKS[base](answer, check.get("value"), threshold) != (kind != base)
    return _Outcome(passed, float(passed))


def _scored(
    answer: str,
    item: Item,
    options: Options,
    given: Sequence[Assertion],
    judged: Mapping[int, float],
) -> ScoreResult:
    """Scores by the assertions. As in promptfoo, only canonically equal texts are equal."""
    outcome = _combine(given, item.metadata.get("threshold"), judged)
    answer = canonical(answer)

    def score(text: str) -> float:
        found = outcome(text)
        return found.score if options["graded"] else float(found.passed)

    try:
        strict = score(answer)
        best, rule = strict, ""
        for name, text in unwrap_layers(answer) if strict < 1 else ():
            if (forgiven := score(text)) > best:
                best, rule = forgiven, name
    except (PatternTooSlow, SchemaTooLarge):
        return UNSCORED
    return score_result(strict, best, rule)


def _assertions(item: Item) -> Sequence[Assertion]:
    given: Sequence[Assertion] = canonical_value(item.metadata.get("assert")) or ()
    return given


def assertions(answer: str, item: Item, options: Options) -> ScoreResult:
    """Scores 1 if the item passes in promptfoo's sense; with `graded` the weighted mean."""
    if not answer.strip():
        return EMPTY_ANSWER
    return _scored(answer, item, options, _assertions(item), {})


async def judged_assertions(
    judging: AnswerJudge, answer: str, item: Item, options: Options
) -> ScoreResult:
    if not answer.strip():
        return EMPTY_ANSWER
    judged: dict[int, float] = {}
    given = _assertions(item)
    for check in list_single(given):
        if str(check["type"]).removeprefix(NOT) == RUBRIC:
            graded = replace(item, metadata={"rubric": check["value"]})
            result = await rubric(judging, answer, graded, {"rubric": "", "show_target": False})
            if result.strict is None:
                return UNSCORED
            judged[id(check)] = result.strict
    return _scored(answer, item, options, given, judged)


def list_single(given: Sequence[Assertion]) -> Iterator[Assertion]:
    for check in given:
        if check.get("type") == SET:
            yield from list_single(check.get("assert") or ())
        else:
            yield check


def check_assertion(given: object, *, judged: bool) -> None:
    """Checks an assertion. Raises InputError if it cannot check an answer."""
    if not isinstance(given, Mapping) or not isinstance(given.get("type"), str):
        raise InputError("an assertion is an object with a `type`")
    kind = given["type"].removeprefix(NOT)
    numbers = [given[name] for name in ("weight", "threshold") if given.get(name) is not None]
    if not all(isinstance(n, int | float) and n >= 0 for n in numbers):
        raise InputError(f"{kind}: weight and threshold must be numbers of 0 or more")
    if kind == SET:
        for inner in given.get("assert") or ():
            check_assertion(inner, judged=judged)
        return
    known = [*CHECKS, *([RUBRIC] if judged else [])]
    if kind not in known:
        raise InputError(f"no assertion {kind!r} here{did_you_mean(kind, known)}")
    _check_value(kind, given.get("value"))


def _check_value(kind: str, value: object) -> None:
    if kind in _WITHOUT_VALUE:
        if value not in (None, "") and (fault := schema_fault(value)):
            raise InputError(f"{kind}: its value is not a JSON schema: {fault}")
        return
    if value is None or value in ("", []):
        raise InputError(f"{kind}: needs a value")
    if kind in _TEXTS and not isinstance(value, str):
        raise InputError(f"{kind}: its value must be a text")
    if "contains" in kind and isinstance(value, bool | dict):
        raise InputError(f"{kind}: its value must be a text, a number, or a list of them")
    if kind == "regex":
        _pattern(str(value))
    elif kind == "word-count":
        _check_count(value)
    elif kind.endswith(("-any", "-all")):
        _listed(value)


def _check_count(value: Any) -> None:
    limits = [value.get("min"), value.get("max")] if isinstance(value, dict) else [value]
    try:
        numbers = [float(limit) for limit in limits if limit is not None]
    except (TypeError, ValueError):
        numbers = []
    if not numbers:
        raise InputError("word-count: its value is a number, or has min and max")


def _check(*, judged: bool) -> Callable[[Item, Options], str | None]:
    def check(item: Item, _options: Options) -> str | None:
        given = item.metadata.get("assert")
        if not isinstance(given, list) or not given:
            return "it has no assertion (metadata.assert)"
        for assertion in given:
            try:
                check_assertion(assertion, judged=judged)
            except InputError as error:
                raise InputError(f"item {item.id!r}: {error}") from None
        return None

    return check


ASSERTIONS = Scorer("assertions", assertions, {"graded": False}, check=_check(judged=False))
JUDGED_ASSERTIONS = Scorer(
    "judged_assertions",
    no_score,
    {"graded": False},
    check=_check(judged=True),
    judged=judged_assertions,
)
