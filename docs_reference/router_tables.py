"""The router's tables as the reference shows them: what a conversation carries to each kind of
provider, whose fault a failure is, and what each reason to end means.
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
_ANY: Final = "any"

_SAME: Final = {
    SameTarget.NEVER: "no",
    SameTarget.ONCE: "once",
    SameTarget.BACKOFF: "once, after a short random pause",
    SameTarget.RETRY_AFTER: "once, after its `Retry-After`, if time allows",
}
_NEXT: Final = {
    NextTarget.YES: "yes",
    NextTarget.NO: "no",
    NextTarget.LARGER_WINDOW: "with a larger `context_window`",
    NextTarget.IF_ROUTE_SAYS: "with `on_content_policy: fallback`",
}
_CIRCUIT: Final = {
    BreakerEffect.NEUTRAL: "stays",
    BreakerEffect.FAILURE: "counts it",
    BreakerEffect.OPENS: "opens",
}
# What `classify_status` says where no table has the status.
_OTHERS: Final = {
    FailureClass.BAD_REQUEST: ("other 4xx",),
    FailureClass.SERVER: ("other 5xx",),
}

# The columns of `FailureRule`, as the lines name them.
_LABELS: Final = {
    "fault": "fault:",
    "reach": "reach:",
    "same_target": "same target:",
    "next_target": "next target:",
    "breaker": "circuit:",
    "alerts": "alert:",
}
USUAL: Final = {
    "same target:": "no",
    "next target:": "yes",
    "circuit:": "stays",
}

END_HEADS: Final = ("meaning", "reasons", "counted in")
_ENDINGS: Final = {
    AnswerEnding.GOOD: (
        "good",
        "nothing; an answer without words, calls or a refusal is `empty`: fail-over",
    ),
    AnswerEnding.CUT: ("cut", "the guardrail `truncation`"),
    AnswerEnding.REFUSED: ("refused", "the guardrail `refusals`"),
    AnswerEnding.FAILED: ("failed", "fail-over and circuit, as `aborted`"),
    AnswerEnding.UNKNOWN: (
        "unknown",
        "with words: `swapgate_irregular_answers_total`; without words: as failed",
    ),
}


ABILITY_HEADS: Final = ("models", "kinds", "abilities", "source")
KIND_ABILITY_HEADS: Final = ("kinds", "abilities of all models", "source")


def ability_rows() -> Iterator[tuple[str, ...]]:
    """Yields the rows of the table of abilities that name models."""
    for row in ROWS:
        if row.shown:
            yield (row.shown, _kinds(row), _abilities(row), _source(row))


def kind_ability_rows() -> Iterator[tuple[str, ...]]:
    """Yields the rows of the table of abilities that hold for all models of a kind."""
    for row in ROWS:
        if not row.shown:
            at = f" at addresses that end in `{row.api_base_end}`" if row.api_base_end else ""
            yield (_kinds(row) + at, _abilities(row), _source(row))


def _kinds(row: AbilityRow) -> str:
    return ", ".join(f"`{name}`" for name in sorted(row.kinds)) or "all"


def _abilities(row: AbilityRow) -> str:
    return ", ".join(f"`{name}: {_value(value)}`" for name, value in row.values.items())


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    return str(value)


def _source(row: AbilityRow) -> str:
    if row.source.startswith("https://"):
        return f"[page]({row.source})"
    repository, _, number = row.source.partition("#")
    return f"[{row.source}](https://github.com/{repository}/issues/{number})"


def history_rows() -> Iterator[tuple[str, ...]]:
    """Yields a row for each set of kinds that take the same of a history."""
    by_intake: dict[HistoryIntake, list[str]] = {}
    for name in PROVIDER_KINDS:
        if name in SERVED_KINDS:
            by_intake.setdefault(INTAKES.get(name, TAKES_ALL), []).append(name)
    for intake, kinds in by_intake.items():
        yield (
            ", ".join(f"`{name}`" for name in kinds),
            _ids(intake),
            f"`{intake.tool_names.pattern}`" if intake.tool_names else _ANY,
            _reasoning(intake),
            _refused(intake),
        )


def _ids(intake: HistoryIntake) -> str:
    if intake.call_ids is None:
        return _ANY
    pattern = intake.call_ids.pattern.pattern.removeprefix("(?s)")
    return f"`{pattern}`, each once"


def _reasoning(intake: HistoryIntake) -> str:
    if intake.demands_reasoning:
        return "its own; empty text if an answer with tool calls has none"
    return "its own" if intake.returns_reasoning else "none"


def _refused(intake: HistoryIntake) -> str:
    named = dict.fromkeys(intake.refused)
    said = []
    for group, words in (
        (FOREIGN, "marks of other providers¹"),
        (OPENAI_ALONE, "OpenAI's own fields²"),
    ):
        if set(group) <= named.keys():
            said.append(words)
            named = {name: None for name in named if name not in group}
    return ", ".join([*said, *(f"`{name}`" for name in named)])


def fault_lines() -> Iterator[str]:
    """Yields a line for each class of failure: what is not as `USUAL`, then the refusals of
    the class that reach less or more far.
    """
    for failure, rule in FAILURE_RULES.items():
        codes = {code for row in REFUSALS if row.failure is failure for code in row.codes}
        facts = {
            "status": ", ".join(_statuses(failure)),
            "codes": _listed(codes),
            **{_LABELS[column.name]: _fact(rule, column.name) for column in fields(rule)},
        }
        told = [
            f"{name} {fact}" for name, fact in facts.items() if fact and fact != USUAL.get(name)
        ]
        told += _other_reaches(failure)
        yield f"- `{failure.value}`: {FAILURE_WORDS[failure]}; {'; '.join(told)}"


def _fact(rule: FailureRule, column: str) -> str:
    match getattr(rule, column):
        case SameTarget() as same:
            return _SAME[same]
        case NextTarget() as following:
            return _NEXT[following]
        case BreakerEffect():
            return _circuit(rule)
        case bool() as flag:
            return "yes" if flag else ""
        case value:
            return _words(value)


def _words(value: StrEnum) -> str:
    return value.value.replace("_", " ")


def _other_reaches(failure: FailureClass) -> Iterator[str]:
    """Yields what reaches less or more far than the class usually does."""
    usual = FAILURE_RULES[failure].reach
    for status, refusal in BY_STATUS.items():
        if refusal.failure is failure and refusal.reach not in (None, usual):
            yield f"status {status} reaches: {_words(refusal.reach)}"
    for row in REFUSALS:
        if row.failure is failure and row.reach not in (None, usual):
            named = f"codes {_listed(row.codes)}" if row.codes else ""
            worded = "some messages" if row.words else ""
            both = " and ".join(filter(None, (named, worded)))
            yield f"{both} reach: {_words(row.reach)}"


def _listed(codes: Collection[str]) -> str:
    return ", ".join(f"`{code}`" for code in sorted(codes))


def end_rows() -> Iterator[tuple[str, ...]]:
    """Yields a row for each meaning of a reason to end."""
    for ending, (name, counted) in _ENDINGS.items():
        words = (
            word for known in ENDS.values() for word, own in known.items() if own is ending
        )
        said = ", ".join(f"`{word}`" for word in dict.fromkeys(words))
        yield name, said or "any other word", counted


def _statuses(failure: FailureClass) -> Iterator[str]:
    yield from (str(status) for status, own in BY_STATUS.items() if own.failure is failure)
    bare = (status for status, own in WITHOUT_WORDS.items() if own is failure)
    yield from (f"{status} without an error body" for status in bare)
    yield from _OTHERS.get(failure, ())


def _circuit(rule: FailureRule) -> str:
    """What becomes of the target's circuit."""
    effect = _CIRCUIT[rule.breaker]
    if rule.breaker is BreakerEffect.NEUTRAL:
        return effect
    if rule.reach is Reach.REQUEST:
        return f"{effect} after three callers in a row"
    return f"{effect} when no other key is left" if rule.reach.is_of_key else effect
