"""The interface of a scorer: its inputs and the score that it returns."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from evals.suites.items import Item
from harness.frame.canonical_text import canonical
from harness.frame.errors import InputError
from harness.frame.suggestions import did_you_mean

Options = Mapping[str, Any]
KINDS: Final[Mapping[type, str]] = {bool: "yes or no (true, false)", dict: "mapping"}


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """Scores in [0, 1]; None for both if the scorer itself failed.

    strict: the score in the form that the suite demands.
    lenient: the score without faults of form, never below strict.
    rule: the broken form rule if strict is lower, or why the answer is unreadable; else empty.
    """

    strict: float | None
    lenient: float | None
    rule: str = ""


UNSCORED = ScoreResult(None, None)
EMPTY_ANSWER = ScoreResult(0.0, 0.0, "empty_answer")


class NotJudged(Exception):
    """The judge or the sandbox failed, so the answer has no score without being wrong."""


@dataclass(frozen=True, slots=True)
class AnswerToolCall:
    """A tool call of an answer. arguments: the provider's JSON text."""

    name: str
    arguments: str


# Runs a Python program, with a time limit in seconds. Returns its output, or None if it failed.
RunProgram = Callable[[str, float], Awaitable[str | None]]
SandboxedScore = Callable[[str, Item, Options, RunProgram], Awaitable[ScoreResult]]


class AnswerJudge(Protocol):
    """The pinned judge model.

    spent: the reason why no further call is allowed; empty while calls are allowed.
    """

    @property
    def attempts(self) -> int: ...

    @property
    def spent(self) -> str: ...

    async def close(self) -> None: ...

    async def ask(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Returns the judge's answer. Raises NotJudged if it fails or is not allowed."""
        ...


JudgedScore = Callable[[AnswerJudge, str, Item, Options], Awaitable[ScoreResult]]


def no_score(_answer: str, _item: Item, _options: Options) -> ScoreResult:
    return UNSCORED


def written(target: object) -> str:
    """Returns a target as an answer would write it, in NFC: a text by itself, else JSON."""
    text = target if isinstance(target, str) else json.dumps(target, ensure_ascii=False)
    return canonical(text)


def right_or_wrong(*, strict: bool, lenient: bool, rule: str = "") -> ScoreResult:
    return score_result(float(strict), float(lenient), rule)


def unreadable(answer: str, rule: str) -> ScoreResult:
    return ScoreResult(0.0, 0.0, rule) if answer.strip() else EMPTY_ANSWER


def score_result(strict: float, lenient: float, rule: str = "") -> ScoreResult:
    """Builds a result: raises lenient to strict, and keeps the rule only if they differ."""
    lenient = max(strict, lenient)
    return ScoreResult(strict, lenient, rule if strict < lenient else "")


def accepts_any(_item: Item, _options: Options) -> str | None:
    return None


def no_target_score(_item: Item, _options: Options) -> ScoreResult | None:
    return None


def as_given(_items: Sequence[Item], options: Options) -> Options:
    return options


@dataclass(frozen=True)
class Scorer:
    """A scorer by name. `score` never raises for an answer to an item that `check` accepts.

    defaults: the known options with their values.
    check: returns None for a scorable item, or the reason to omit the item from the suite;
      raises InputError for a wrong item.
    complete: fills in options from the whole suite.
    target_score: scores the target as an answer, in the demanded form; None if the target is a
      rule or an example, which the scorer does not compare with answers.
    calls: scores an answer with its tool calls; other scorers ignore tool calls.
    judged: scores by the suite's judge, instead of `score`.
    sandboxed: scores by running programs, instead of `score`; may raise NotJudged.
    """

    name: str
    score: Callable[[str, Item, Options], ScoreResult]
    defaults: Options = field(default_factory=dict)
    check: Callable[[Item, Options], str | None] = accepts_any
    complete: Callable[[Sequence[Item], Options], Options] = as_given
    target_score: Callable[[Item, Options], ScoreResult | None] = no_target_score
    calls: Callable[[Sequence[AnswerToolCall], str, Item, Options], ScoreResult] | None = None
    judged: JudgedScore | None = None
    sandboxed: SandboxedScore | None = None

    def options(self, given: Options) -> Options:
        """Merges `given` over the defaults. Raises InputError for an unknown option."""
        for key, value in given.items():
            if key not in self.defaults:
                known = ", ".join(sorted(self.defaults)) or "none"
                hint = did_you_mean(key, self.defaults, otherwise=f"; it knows: {known}")
                raise InputError(f"scorer {self.name!r}: unknown option {key!r}{hint}")
            default = self.defaults[key]
            if isinstance(default, bool) != isinstance(value, bool) or (
                isinstance(default, str | dict) and not isinstance(value, type(default))
            ):
                raise InputError(
                    f"scorer {self.name!r}: option {key!r}: {value!r} is not a "
                    f"{KINDS.get(type(default), 'text')}"
                )
        return {**self.defaults, **given}
