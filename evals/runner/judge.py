"""Asks the judge, the pinned model that scores a suite's answers, over HTTP within its limits
of calls and cost. `JudgeBill` holds what scoring one answer took, and which models answered.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from evals.runner.chat_completions import request_body
from evals.runner.provider_client import EvalProviderClient, ProviderFailed
from evals.scorers import NotJudged
from harness.domain.evals.pins import ServedModel
from harness.domain.formatting import format_usd
from harness.domain.routing.target import Price, Provider
from harness.domain.settings import JudgeSettings


@dataclass
class JudgeBill:
    """What scoring one answer took."""

    calls: int = 0
    cost_usd: float | None = 0.0  # None where the judge's price is unknown
    heard: set[ServedModel] = field(default_factory=set)  # what answered, by its own name

    @property
    def noted(self) -> dict[str, Any]:
        """What it cost, as Inspect's log keeps it."""
        return {"calls": self.calls, "cost_usd": self.cost_usd}

    def pay(self, cost_usd: float | None) -> None:
        known = self.cost_usd is not None and cost_usd is not None
        self.cost_usd = (self.cost_usd or 0.0) + (cost_usd or 0.0) if known else None


_bill: ContextVar[JudgeBill | None] = ContextVar("bill", default=None)


@contextmanager
def track_judge_bill() -> Iterator[JudgeBill]:
    """What judges are asked in this block, in tasks that it starts too, stands on the bill."""
    bill = JudgeBill()
    token = _bill.set(bill)
    try:
        yield bill
    finally:
        _bill.reset(token)


class Judge:
    """Implements judge_protocol.AnswerJudge. client: of its provider; the caller closes it.

    calls: how many were made for this run before, by a worker that is gone.
    """

    def __init__(
        self,
        settings: JudgeSettings,
        provider: Provider,
        client: EvalProviderClient,
        *,
        calls: int = 0,
    ) -> None:
        self._settings = settings
        self._client = client
        self._target = provider.as_sent(settings.target)
        self._price: Price | None = provider.prices.get(settings.target.model)
        self._calls = calls
        self.cost_usd = 0.0

    @property
    def attempts(self) -> int:
        return self._settings.attempts

    @property
    def spent(self) -> str:
        """Says why the judge may not be asked any more; empty while it may."""
        most, limit = self._settings.max_calls, self._settings.max_cost_usd
        name = self._settings.target.name
        if self._calls >= most:
            return f"the judge {name} has been asked {most} times, the most that `judge` allows"
        if limit is not None and self._price is None:
            return (
                f"the price of the judge {name} is not known, so that its cost cannot be held "
                f"to {format_usd(limit)}: give its provider a price"
            )
        if limit is not None and self.cost_usd >= limit:
            return (
                f"the judge {name} has cost {format_usd(self.cost_usd)} of {format_usd(limit)}"
            )
        return ""

    async def ask(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Asks the judge, pays, and returns its text. Raises NotJudged."""
        self._charge()
        settings = {"temperature": 0, "max_tokens": self._settings.max_output_tokens}
        try:
            came = await self._client.ask(request_body(self._target, messages, settings))
        except ProviderFailed as error:
            raise self._away(error) from None
        reply = came.reply
        self._pay(reply.served, reply.input_tokens, reply.output_tokens, reply.cached_tokens)
        return reply.text

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Asks for the embeddings of texts, pays, and returns them. Raises NotJudged."""
        self._charge()
        target = self._settings.target
        asked: dict[str, Any] = {**target.parameters, "model": target.model}
        try:
            came = await self._client.embed({**asked, "input": list(texts)})
        except ProviderFailed as error:
            raise self._away(error) from None
        self._pay(ServedModel(came.model), came.tokens, 0)
        if len(came.vectors) != len(texts):
            raise NotJudged(
                f"{target.name} sent {len(came.vectors)} vectors for {len(texts)} texts"
            )
        return came.vectors

    async def close(self) -> None:
        await self._client.close()

    def _charge(self) -> None:
        if self.spent:
            raise NotJudged(self.spent)
        # Before the call: those under way count, or they could be many too many.
        self._calls += 1
        if (bill := _bill.get()) is not None:
            bill.calls += 1

    def _pay(
        self,
        served: ServedModel,
        input_tokens: int,
        output_tokens: int,
        cached_tokens: int = 0,
    ) -> None:
        cost_usd = None
        if self._price is not None:
            cost_usd = self._price.cost_usd(input_tokens, output_tokens, cached_tokens)
            self.cost_usd += cost_usd
        if (bill := _bill.get()) is not None:
            bill.pay(cost_usd)
            bill.heard.add(served)

    def _away(self, error: ProviderFailed) -> NotJudged:
        return NotJudged(f"the judge {self._settings.target.name} did not answer: {error}")
