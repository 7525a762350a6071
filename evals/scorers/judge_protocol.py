"""Scorers that ask a judge share this protocol: the prompt, and how the reply is read."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from evals.scorers.interface import UNSCORED, Options, ScoreResult
from evals.scorers.json_repair import repaired
from evals.suites.items import Item

T = TypeVar("T")
DATA = "DATA:\n"
REMINDER = "Answer with the one JSON object alone, in the form that was asked for."


class AnswerJudge(Protocol):
    """The pinned model. Both raise NotJudged when it does not answer or may not be asked."""

    @property
    def attempts(self) -> int:
        """How often a judge is asked whose answer cannot be read."""
        ...

    @property
    def spent(self) -> str:
        """Says why the judge may not be asked any more; empty while it may."""
        ...

    async def close(self) -> None: ...

    async def ask(self, messages: Sequence[Mapping[str, str]]) -> str: ...

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]: ...


JudgedScore = Callable[[AnswerJudge, str, Item, Options], Awaitable[ScoreResult]]


def without_a_judge(_answer: str, _item: Item, _options: Options) -> ScoreResult:
    """Leaves an answer without a score until the judge has been asked."""
    return UNSCORED


def with_data(instructions: str, data: Mapping[str, Any]) -> list[dict[str, str]]:
    """What is judged stands in one JSON object at the end: text in it cannot end it."""
    shown = json.dumps(data, ensure_ascii=False, sort_keys=True)
    return [{"role": "user", "content": f"{instructions}\n\n{DATA}{shown}"}]


async def ask_until_readable(
    judging: AnswerJudge,
    messages: Sequence[Mapping[str, str]],
    read: Callable[[Mapping[str, Any]], T | None],
) -> T | None:
    """The first answer that `read` takes; None when the judge gives none of that form.

    Raises NotJudged.
    """
    for attempt in range(judging.attempts):
        reminder = [{"role": "system", "content": REMINDER}] if attempt else []
        said = only_object(await judging.ask([*reminder, *messages]))
        found = read(said) if said is not None else None
        if found is not None:
            return found
    return None


def only_object(said: str) -> Mapping[str, Any] | None:
    """The one object of a judge's answer, its form mended; None where there are several.

    A judge that quotes what it judges may quote a verdict in it: none is chosen among two.
    """
    begin, end = said.find("{"), said.rfind("}")
    mended = repaired(said[begin : end + 1]) if 0 <= begin < end else None
    if mended is None or "prose" in mended[1]:
        return None
    return mended[0]


def target_text(given: object) -> str:
    """A target as the judge sees it."""
    return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
