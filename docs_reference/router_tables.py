"""Writes the reference's tables of the router.

The tables have the parts of a history that each kind of provider takes, and the models'
abilities. They also have the rules of each class of failure, and the meanings of the reasons to
end an answer.
"""

from collections.abc import Collection, Iterator
from dataclasses import fields
from enum import StrEnum
from typing import Final

from harness.frame.failures import (
    FAILURE_RULES,
    FAILURE_WORDS,
    BreakerEffect,
    FailureClass,
    FailureRule,
    NextTarget,
    Reach,
    SameTarget,
)
from harness.providers.kinds import PROVIDER_KINDS, SERVED_KINDS
from harness.providers.models.abilities import ROWS, AbilityRow
from router.conversation.intake import (
    FOREIGN,
    INTAKES,
    OPENAI_ALONE,
    TAKES_ALL,
    HistoryIntake,
)
from router.protocols.answers import ENDS, AnswerEnding
from router.protocols.provider_failures import BY_STATUS, REFUSALS, WITHOUT_WORDS

HISTORY_HEADS: Final = (
    "kind",
    "ids of tool calls",
    "names of tools",
    "reasoning",
    "left out",
)
_ANY_VALUE: Final = "any"

_SAME_TARGET_WORDS: Final = {
    SameTarget.NEVER: "no",
    SameTarget.ONCE: "once",
    SameTarget.BACKOFF: "once, after a short random pause",
    SameTarget.RETRY_AFTER: "once, after its `Retry-After`, if time allows",
}
_NEXT_TARGET_WORDS: Final = {
    NextTarget.YES: "yes",
    NextTarget.NO: "no",
    NextTarget.LARGER_WINDOW: "with a larger `context_window`",
    NextTarget.IF_ROUTE_SAYS: "with `on_content_policy: fallback`",
}
_CIRCUIT_WORDS: Final = {
    BreakerEffect.NEUTRAL: "stays",
    BreakerEffect.FAILURE: "counts it",
    BreakerEffect.OPENS: "opens",
}
# The classes that `classify_status` gives to statuses outside of the tables.
_OTHER_STATUSES: Final = {
    FailureClass.BAD_REQUEST: ("other 4xx",),
    FailureClass.SERVER: ("other 5xx",),
}

# The names that the lines give to the columns of `FailureRule`.
_LABELS: Final = {
    "fault": "fault:",
    "reach": "reach:",
    "same_target": "same target:",
    "next_target": "next target:",
    "breaker": "circuit:",
    "alerts": "alert:",
}
USUAL_FACTS: Final = {
    "same target:": "no",
    "next target:": "yes",
    "circuit:": "stays",
}

END_HEADS: Final = ("meaning", "reasons", "counted in")
_ENDING_WORDS: Final = {
    AnswerEnding.GOOD: (
        "good",
        "nothing; an answer without words, calls or a refusal is `empty`: fail-over",
    ),
    AnswerEnding.CUT: ("cut", "the guardrail `truncation`"),
    AnswerEnding.REFUSED: ("refused", "the guardrail `refusals`"),
    AnswerEnding.FAILED: ("failed", "fail-over and circuit, as `aborted`"),
    AnswerEnding.UNKNOWN: (
        "unknown",
        "with words: `swapproof_irregular_answers_total`; without words: as failed",
    ),
}


ABILITY_HEADS: Final = ("models", "kinds", "abilities", "source")
KIND_ABILITY_HEADS: Final = ("kinds", "abilities of all models", "source")


def ability_rows() -> Iterator[tuple[str, ...]]:
    """Yields the rows of the table of abilities that name models."""
    for row in ROWS:
        if row.shown:
            yield (row.shown, _list_kinds(row), _list_abilities(row), _link_source(row))


def kind_ability_rows() -> Iterator[tuple[str, ...]]:
    """Yields the rows of the table of abilities that hold for all models of a kind."""
    for row in ROWS:
        if not row.shown:
            address_note = (
                f" at addresses that end in `{row.api_base_end}`" if row.api_base_end else ""
            )
            yield (_list_kinds(row) + address_note, _list_abilities(row), _link_source(row))


def _list_kinds(row: AbilityRow) -> str:
    return ", ".join(f"`{name}`" for name in sorted(row.kinds)) or "all"


def _list_abilities(row: AbilityRow) -> str:
    return ", ".join(f"`{name}: {_format_value(value)}`" for name, value in row.values.items())


def _format_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    return str(value)


def _link_source(row: AbilityRow) -> str:
    if row.source.startswith("https://"):
        return f"[page]({row.source})"
    repository, _, number = row.source.partition("#")
    return f"[{row.source}](https://github.com/{repository}/issues/{number})"


def history_rows() -> Iterator[tuple[str, ...]]:
    """Yields a row for each set of kinds that take the same parts of a history."""
    by_intake: dict[HistoryIntake, list[str]] = {}
    for name in PROVIDER_KINDS:
        if name in SERVED_KINDS:
            by_intake.setdefault(INTAKES.get(name, TAKES_ALL), []).append(name)
    for intake, kinds in by_intake.items():
        yield (
            ", ".join(f"`{name}`" for name in kinds),
            _describe_ids(intake),
            f"`{intake.tool_names.pattern}`" if intake.tool_names else _ANY_VALUE,
            _describe_reasoning(intake),
            _list_refused(intake),
        )


def _describe_ids(intake: HistoryIntake) -> str:
    if intake.call_ids is None:
        return _ANY_VALUE
    pattern = intake.call_ids.pattern.pattern.removeprefix("(?s)")
    return f"`{pattern}`, each once"


def _describe_reasoning(intake: HistoryIntake) -> str:
    if intake.demands_reasoning:
        return "its own; empty text if an answer with tool calls has none"
    return "its own" if intake.returns_reasoning else "none"


def _list_refused(intake: HistoryIntake) -> str:
    field_names = dict.fromkeys(intake.refused)
    groups = []
    for group, words in (
        (FOREIGN, "marks of other providers¹"),
        (OPENAI_ALONE, "OpenAI's own fields²"),
    ):
        if set(group) <= field_names.keys():
            groups.append(words)
            field_names = {name: None for name in field_names if name not in group}
    return ", ".join([*groups, *(f"`{name}`" for name in field_names)])


def fault_lines() -> Iterator[str]:
    """Yields a line for each class of failure: the facts that differ from `USUAL_FACTS`, then
    the refusals with another reach than the class.
    """
    for failure, rule in FAILURE_RULES.items():
        codes = {code for row in REFUSALS if row.failure is failure for code in row.codes}
        facts = {
            "status": ", ".join(_list_statuses(failure)),
            "codes": _list_codes(codes),
            **{
                _LABELS[column.name]: _describe_fact(rule, column.name)
                for column in fields(rule)
            },
        }
        parts = [
            f"{name} {fact}"
            for name, fact in facts.items()
            if fact and fact != USUAL_FACTS.get(name)
        ]
        parts += _list_other_reaches(failure)
        yield f"- `{failure.value}`: {FAILURE_WORDS[failure]}; {'; '.join(parts)}"


def _describe_fact(rule: FailureRule, column: str) -> str:
    match getattr(rule, column):
        case SameTarget() as same:
            return _SAME_TARGET_WORDS[same]
        case NextTarget() as following:
            return _NEXT_TARGET_WORDS[following]
        case BreakerEffect():
            return _describe_circuit(rule)
        case bool() as flag:
            return "yes" if flag else ""
        case value:
            return _format_words(value)


def _format_words(value: StrEnum) -> str:
    return value.value.replace("_", " ")


def _list_other_reaches(failure: FailureClass) -> Iterator[str]:
    """Yields the statuses and codes with another reach than their class."""
    class_reach = FAILURE_RULES[failure].reach
    for status, refusal in BY_STATUS.items():
        if refusal.failure is failure and refusal.reach not in (None, class_reach):
            yield f"status {status} reaches: {_format_words(refusal.reach)}"
    for row in REFUSALS:
        if row.failure is failure and row.reach not in (None, class_reach):
            codes = f"codes {_list_codes(row.codes)}" if row.codes else ""
            messages = "some messages" if row.words else ""
            subjects = " and ".join(filter(None, (codes, messages)))
            yield f"{subjects} reach: {_format_words(row.reach)}"


def _list_codes(codes: Collection[str]) -> str:
    return ", ".join(f"`{code}`" for code in sorted(codes))


def end_rows() -> Iterator[tuple[str, ...]]:
    """Yields a row for each meaning of a reason to end."""
    for ending, (name, place) in _ENDING_WORDS.items():
        words = (
            word
            for endings in ENDS.values()
            for word, meaning in endings.items()
            if meaning is ending
        )
        reasons = ", ".join(f"`{word}`" for word in dict.fromkeys(words))
        yield name, reasons or "any other word", place


def _list_statuses(failure: FailureClass) -> Iterator[str]:
    yield from (
        str(status)
        for status, status_failure in BY_STATUS.items()
        if status_failure.failure is failure
    )
    without_body = (
        status for status, status_failure in WITHOUT_WORDS.items() if status_failure is failure
    )
    yield from (f"{status} without an error body" for status in without_body)
    yield from _OTHER_STATUSES.get(failure, ())


def _describe_circuit(rule: FailureRule) -> str:
    """Describes a failure's effect on the target's circuit."""
    effect = _CIRCUIT_WORDS[rule.breaker]
    if rule.breaker is BreakerEffect.NEUTRAL:
        return effect
    if rule.reach is Reach.REQUEST:
        return f"{effect} after three callers in a row"
    return f"{effect} when no other key is left" if rule.reach.is_of_key else effect
