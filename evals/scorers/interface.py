"""The interface of a scorer: what it is given, and the score that it returns."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from evals.suites.items import Item
from harness.frame.errors import InputError
from harness.frame.suggestions import did_you_mean

Options = Mapping[str, Any]
KINDS: Final[Mapping[type, str]] = {bool: "yes or no (true, false)", dict: "mapping"}


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """Scores in [0, 1]; None for both when the scorer itself failed.

    strict: as the suite asks for it. lenient: after the form has been forgiven, never below
    strict. rule: the form rule that broke where strict is lower, or why nothing can be read;
    empty otherwise.
    """

    strict: float | None
    lenient: float | None
    rule: str = ""


UNSCORED = ScoreResult(None, None)
EMPTY_ANSWER = ScoreResult(0.0, 0.0, "empty_answer")


class NotJudged(Exception):
    """The answer is there, and what should score it is not: nothing against the answer."""


@dataclass(frozen=True, slots=True)
class AnswerToolCall:
    """A tool call of an answer. arguments: as the provider sent them, JSON in a text."""

    name: str
    arguments: str


# Runs a Python program for so many seconds at most. Gives its output, None where it failed.
RunProgram = Callable[[str, float], Awaitable[str | None]]
SandboxedScore = Callable[[str, Item, Options, RunProgram], Awaitable[ScoreResult]]


class AnswerJudge(Protocol):
    """The pinned model. Both raise NotJudged when it does not answer or may not be asked."""

    @property
    def attempts(self) -> int: ...

    @property
    def spent(self) -> str: ...

    async def close(self) -> None: ...

    async def ask(self, messages: Sequence[Mapping[str, str]]) -> str: ...


JudgedScore = Callable[[AnswerJudge, str, Item, Options], Awaitable[ScoreResult]]


def no_score(_answer: str, _item: Item, _options: Options) -> ScoreResult:
    return UNSCORED


def written(target: object) -> str:
    """The target as an answer would spell it: a text as it is, else JSON."""
    return target if isinstance(target, str) else json.dumps(target, ensure_ascii=False)


def right_or_wrong(*, strict: bool, lenient: bool, rule: str = "") -> ScoreResult:
    return score_result(float(strict), float(lenient), rule)


def unreadable(answer: str, rule: str) -> ScoreResult:
    """Scores an answer in which nothing can be read that was asked for: it is wrong."""
    return ScoreResult(0.0, 0.0, rule) if answer.strip() else EMPTY_ANSWER


def score_result(strict: float, lenient: float, rule: str = "") -> ScoreResult:
    """Builds a result; lenient is raised to strict, and the rule is kept where they differ."""
    lenient = max(strict, lenient)
    return ScoreResult(strict, lenient, rule if strict < lenient else "")


def accepts_any(_item: Item, _options: Options) -> str | None:
    return None


def as_given(_items: Sequence[Item], options: Options) -> Options:
    return options


@dataclass(frozen=True)
class Scorer:
    """A scorer by name. `score` never raises for any answer to an item that `check` accepts.

    defaults: the options it knows, with their values. check: None for an item that it can
    score, or the reason why the item must be left out of the suite; raises InputError for one
    that is plainly wrong. complete: options filled in from the whole suite. calls: scores an
    answer with its tool calls; without it these are not looked at.
    judged: scores by asking the suite's judge. sandboxed: scores by running programs, and may
    raise NotJudged. With one of these two, `score` is not called.
    """

    name: str
    score: Callable[[str, Item, Options], ScoreResult]
    defaults: Options = field(default_factory=dict)
    check: Callable[[Item, Options], str | None] = accepts_any
    complete: Callable[[Sequence[Item], Options], Options] = as_given
    calls: Callable[[Sequence[AnswerToolCall], str, Item, Options], ScoreResult] | None = None
    judged: JudgedScore | None = None
    sandboxed: SandboxedScore | None = None

    def options(self, given: Options) -> Options:
        """The defaults with `given` over them. Raises InputError for an unknown option."""
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
