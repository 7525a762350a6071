"""Asks the incumbent again about records of a suite of traffic (statistics.md §1.22).

The incumbent answers beside the candidate where the log has no answer. It also answers a random
sample of the other records: if a blind judge prefers the answers of now or those of then, the
record is stale, and no verdict may use it.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from evals.runner.chat_completions import ChatReply, request_body
from evals.runner.judge_calibration import CalibrationCache
from evals.runner.provider_client import EvalProviderClient, ProviderFailed
from evals.runner.questions import GivenAnswer, answer_text
from evals.scorers import AnswerJudge, AnswerToolCall, NotJudged
from evals.suites.items import Item, is_answered
from evals.suites.suite import Suite
from evals.traffic.draw import MAX_AGE_DAYS
from harness.frame.errors import RecordStale
from harness.frame.formatting import format_percent
from harness.frame.plain_data import digest, hash_content
from harness.gate.arrays import np
from harness.gate.offline.item_tests import guarded_t, t_tail
from harness.gate.pins import ServedModel, named_models
from harness.gate.run import RECORD_STALE
from harness.providers.target import SentTarget

CHECKED: Final = 60  # records that the incumbent is asked again
LEVEL: Final = 0.05  # of the two-sided test of the win share against ½
_DAY_S: Final = 86_400.0


class AskedIncumbent:
    """Asks the incumbent by the same code, and with the same retries, as the candidate."""

    def __init__(self, target: SentTarget, client: EvalProviderClient, suite: Suite) -> None:
        self._target = target
        self._client = client
        self._suite = suite

    async def ask(self, item: Item) -> ChatReply:
        """Asks an item once more. Raises NotJudged if the incumbent does not answer."""
        settings: dict[str, Any] = {
            "temperature": self._suite.settings.temperature,
            **self._suite.fields(item.id),
        }
        body = request_body(self._target, self._suite.context(item.id), settings)
        try:
            reply, _ = await self._client.ask(body)
        except ProviderFailed as error:
            raise NotJudged(f"the incumbent did not answer again: {error}") from None
        return reply

    async def answer(self, item: Item) -> str:
        """Returns the new answer as a run stores it. Raises as `ask`."""
        return written_reply(await self.ask(item))

    async def close(self) -> None:
        await self._client.close()


def written_reply(reply: ChatReply) -> str:
    calls = [AnswerToolCall(call.name, call.arguments) for call in reply.tool_calls]
    return answer_text(reply.text, calls)


@dataclass(frozen=True, slots=True)
class RecordCheck:
    """How the incumbent's answers of now compare with the logged ones.

    share: the win share of now. p: two-sided, against ½. served: the model that answered.
    """

    share: float
    p: float
    n: int
    served: str = ""
    build: str = ""

    @property
    def is_stale(self) -> bool:
        return self.p <= LEVEL

    @property
    def text(self) -> str:
        if not self.n:
            return "both models answer every record now"
        return (
            f"asked again about {self.n} records, the incumbent wins "
            f"{format_percent(self.share)} against its logged answers (p = {self.p:.2g} "
            "against 50 %)"
        )


def choose_records(suite: Suite) -> Sequence[Item]:
    """Chooses the records of the check by the registered draw, and not by their answers."""
    answered = [item for item in suite.items.values() if is_answered(item)]
    seed = suite.options["draw"]
    return sorted(answered, key=lambda item: hash_content(f"{seed}:check:{item.id}"))[:CHECKED]


def share_p(scores: Sequence[float]) -> float:
    """Returns the two-sided p-value of the mean score against ½, by the t test of §1.5."""
    differences = np.array([2.0 * score - 1.0 for score in scores])
    t = abs(float(guarded_t(differences, 0.0)))
    return min(1.0, 2.0 * float(t_tail(len(scores), t)))


async def check_record(
    suite: Suite,
    incumbent: AskedIncumbent,
    judging: AnswerJudge,
    *,
    checks: CalibrationCache | None,
    connections: int,
) -> RecordCheck:
    """Checks a suite's record, once for each draw: a second check could hide the first.

    Args:
        checks: the cache of this machine.

    Raises RecordStale for a stale record, NotJudged if the incumbent or the judge fails.
    """
    key = digest([suite.pin.digest, "record"])[:24]
    found = checks.recent(key, MAX_AGE_DAYS * _DAY_S, RecordCheck) if checks else None
    if found is None:
        found = await _measure(suite, incumbent, judging, connections)
        if checks:
            checks.keep(key, found)
    if found.is_stale:
        raise RecordStale(
            f"suite {suite.settings.name}: {found.text}, {RECORD_STALE}: draw it again "
            f"by `swapproof suite draw {suite.settings.name} … --replace`, with --ask-again, "
            "or with fewer --days"
        )
    return found


async def _measure(
    suite: Suite, incumbent: AskedIncumbent, judging: AnswerJudge, connections: int
) -> RecordCheck:
    gate = asyncio.Semaphore(connections)

    async def rate(item: Item) -> tuple[float, ServedModel]:
        async with gate:
            reply = await incumbent.ask(item)
            result = await suite.judge_answer(written_reply(reply), item, judging)
        # A pair that the judge cannot compare shows no difference.
        return 0.5 if result.strict is None else result.strict, reply.served

    rated = await asyncio.gather(*map(rate, choose_records(suite)))
    scores = [score for score, _ in rated]
    served = named_models(model for _, model in rated)
    only = served[0] if len(served) == 1 else ServedModel("")
    share = float(np.mean(scores)) if scores else 0.5
    return RecordCheck(
        share, share_p(scores) if scores else 1.0, len(scores), only.model, only.build
    )


async def answer_items(
    incumbent: AskedIncumbent, items: Iterable[Item], connections: int
) -> Mapping[str, GivenAnswer]:
    """Asks the items that the log has no answer to, and returns the answers, by item.

    An item that the incumbent does not answer either has an empty answer.
    """
    gate = asyncio.Semaphore(connections)

    async def answer(item: Item) -> tuple[str, GivenAnswer]:
        async with gate:
            try:
                reply = await incumbent.ask(item)
            except NotJudged:
                return item.id, GivenAnswer("")
        tokens = (reply.input_tokens, reply.output_tokens)
        return item.id, GivenAnswer(written_reply(reply), tokens)

    unanswered = {item.id: item for item in items if not is_answered(item)}
    return dict(await asyncio.gather(*map(answer, unanswered.values())))
