"""Asks a suite's judge within its limits, and measures its agreement with people.

Cohen (1960), weighted: Cohen (1968); large-sample variance: Fleiss, Cohen and Everitt (1969).

The judge's prompts and the reading of its answers are in `evals.scorers.judged`. This module
only limits, counts and checks the judge. A judge below the floor scores no item.
"""

import asyncio
import json
import math
import os
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, TypeVar

from evals.runner.chat_completions import ChatReply, request_body
from evals.runner.provider_client import EvalProviderClient, ProviderFailed
from evals.scorers import AnswerJudge, NotJudged
from evals.suites.items import Reference, load_references
from evals.suites.suite import Suite
from harness.evals.settings import JudgeSettings, SuiteSettings
from harness.frame.errors import InputError, JudgeUnfit
from harness.frame.formatting import format_usd
from harness.frame.plain_data import digest
from harness.frame.ports import Clock
from harness.gate.pins import ServedModel
from harness.gate.run import CUT
from harness.providers.target import Price, Provider

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Measured = TypeVar("Measured")


@dataclass
class JudgeBill:
    """The calls to the judge that one sample caused."""

    calls: int = 0
    cost_usd: float | None = 0.0  # None if the judge's price is unknown
    served: set[ServedModel] = field(default_factory=set)  # the models that answered

    @property
    def noted(self) -> dict[str, Any]:
        return {"calls": self.calls, "cost_usd": self.cost_usd}

    def pay(self, cost_usd: float | None) -> None:
        """Adds a call's cost. One call with an unknown price makes the whole cost unknown."""
        is_known = self.cost_usd is not None and cost_usd is not None
        self.cost_usd = (self.cost_usd or 0.0) + (cost_usd or 0.0) if is_known else None


_bill: ContextVar[JudgeBill | None] = ContextVar("bill", default=None)


@contextmanager
def track_judge_bill() -> Iterator[JudgeBill]:
    """Counts the judges' calls in this block, and in tasks that the block starts."""
    bill = JudgeBill()
    token = _bill.set(bill)
    try:
        yield bill
    finally:
        _bill.reset(token)


class Judge:
    """Implements interface.AnswerJudge. client: the provider's; the caller closes it.

    calls: the number of earlier calls of this run by other workers.
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
        """The reason why no further call is allowed; empty while calls are allowed."""
        max_calls = self._settings.max_calls
        max_usd = self._settings.max_cost_usd
        name = self._settings.target.name
        if self._calls >= max_calls:
            return f"the judge {name} has had {max_calls} calls, the most that `judge` allows"
        if max_usd is not None and self._price is None:
            return (
                f"the price of the judge {name} is unknown, so Swapproof cannot limit its cost "
                f"to {format_usd(max_usd)}: give its provider a price"
            )
        if max_usd is not None and self.cost_usd >= max_usd:
            return (
                f"the judge {name} has cost {format_usd(self.cost_usd)} of "
                f"{format_usd(max_usd)}"
            )
        return ""

    async def ask(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Asks the judge once, at temperature 0, and returns its text.

        Raises NotJudged if no further call is allowed, or if the judge does not answer. Also
        raises it if the token limit cut the answer before its judgement.
        """
        self._charge()
        settings = {
            "temperature": 0,
            "max_tokens": self._settings.max_output_tokens,
        }
        try:
            reply, _ = await self._client.ask(request_body(self._target, messages, settings))
        except ProviderFailed as error:
            name = self._settings.target.name
            raise NotJudged(f"the judge {name} did not answer: {error}") from None
        self._pay(reply)
        if reply.finish == CUT and "}" not in reply.text:
            limit = f"{self._settings.max_output_tokens:,} tokens"
            raise NotJudged(
                f"the judge {self._settings.target.name} was cut at {limit} (finish reason: "
                "length): raise the suite's judge.max_output_tokens"
            )
        return reply.text

    async def close(self) -> None:
        await self._client.close()

    def _charge(self) -> None:
        if self.spent:
            raise NotJudged(self.spent)
        # Count before the call, else parallel calls could exceed the limit.
        self._calls += 1
        if (bill := _bill.get()) is not None:
            bill.calls += 1

    def _pay(self, reply: ChatReply) -> None:
        cost_usd = reply.cost_usd(self._price)
        self.cost_usd += cost_usd or 0.0
        if (bill := _bill.get()) is not None:
            bill.pay(cost_usd)
            bill.served.add(reply.served)


@dataclass(frozen=True, slots=True)
class RaterAgreement:
    """The agreement of a judge with people. n: the number of pairs."""

    # 1 for full agreement, 0 for chance; None if both raters used only the same category, for
    # which chance alone gives full agreement.
    kappa: float | None
    low: float | None  # low, high: 95 % interval; None without kappa
    high: float | None
    n: int


def cohens_kappa(pairs: Sequence[tuple[Hashable, Hashable]]) -> RaterAgreement:
    """Measures agreement on pairs of two raters' categories. Raises InputError without a pair.

    kappa = (p_o - p_e) / (1 - p_e), with p_e from the raters' own shares of each category. The
    interval is normal, cut to [-1, 1]; with few pairs it is rough.
    """
    n = len(pairs)
    if not n:
        raise InputError("agreement needs at least one pair of ratings")
    cells = {cell: count / n for cell, count in Counter(pairs).items()}
    first_shares = _count_shares([first for first, _ in pairs])
    second_shares = _count_shares([second for _, second in pairs])
    observed = math.fsum(share for (first, second), share in cells.items() if first == second)
    chance = math.fsum(
        share * second_shares.get(category, 0.0) for category, share in first_shares.items()
    )
    if chance >= 1.0:
        return RaterAgreement(None, None, None, n)
    kappa = (observed - chance) / (1 - chance)
    spread = 0.0
    for (first, second), share in cells.items():
        mean = second_shares.get(first, 0.0) + first_shares.get(second, 0.0)
        agrees = 1.0 if first == second else 0.0
        spread += share * (agrees - mean * (1 - kappa)) ** 2
    variance = (spread - (kappa - chance * (1 - kappa)) ** 2) / (n * (1 - chance) ** 2)
    half_width = NormalDist().inv_cdf(0.975) * math.sqrt(max(variance, 0.0))
    return RaterAgreement(kappa, max(kappa - half_width, -1.0), min(kappa + half_width, 1.0), n)


def _count_shares(ratings: Sequence[Hashable]) -> dict[Hashable, float]:
    return {category: count / len(ratings) for category, count in Counter(ratings).items()}


ABSTAINED = -1  # a category that people never use


@dataclass(frozen=True, slots=True)
class CalibrationCache:
    """Keeps measurements, such as judges' agreement with people, in a file of this machine for
    each pin.
    """

    folder: Path
    clock: Clock

    def recent(self, key: str, max_age_s: float, kind: type[Measured]) -> Measured | None:
        """Returns the measurement of the last `max_age_s` seconds; None without one."""
        now = self.clock.now().timestamp()
        try:
            content = json.loads(self._file(key).read_text(encoding="utf-8"))
            # If the clock is set back, an old measurement must not stay valid forever.
            is_fresh = now - max_age_s < content.pop("at") <= now
            return kind(**content) if is_fresh else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def keep(self, key: str, measured: "DataclassInstance") -> None:
        """Stores a measurement as measured now. It replaces an older one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # Another worker may write the same file at this moment.
        part = self._file(key).with_suffix(f".{os.getpid()}.part")
        content = {**asdict(measured), "at": self.clock.now().timestamp()}
        part.write_text(json.dumps(content), encoding="utf-8")
        part.replace(self._file(key))

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.json"


def score_band(score: float | None, levels: int) -> int:
    """Returns the band of a score from 0 to 1, from 0 to levels - 1. A score of None is
    `ABSTAINED`.
    """
    return ABSTAINED if score is None else min(int(score * levels), levels - 1)


async def measure_judge(
    suite: Suite,
    judging: AnswerJudge,
    *,
    checks: CalibrationCache | None,
    connections: int,
) -> RaterAgreement | None:
    """Measures the judge's agreement with people; None for a suite without references.

    Args:
        checks: the cache of recent measurements.

    Raises JudgeUnfit if the judge fails.
    """
    judge = suite.settings.judge
    if judge is None or judge.references is None:
        return None
    agreement = (
        checks.recent(_cache_key(suite), judge.recheck_s, RaterAgreement) if checks else None
    )
    if agreement is None:
        try:
            agreement = await _rate_references(suite, judging, judge, connections)
        except NotJudged as error:
            raise JudgeUnfit(
                f"suite {suite.settings.name}: Swapproof could not check its judge: {error}"
            ) from None
        if checks:
            checks.keep(_cache_key(suite), agreement)
    return agreement


def _cache_key(suite: Suite) -> str:
    """Returns the cache's key: it differs for another scorer, rubric, judge or other
    references.
    """
    return digest([suite.pin.name, suite.pin.scorer])[:24]


async def _rate_references(
    suite: Suite,
    judging: AnswerJudge,
    judge: JudgeSettings,
    connections: int,
) -> RaterAgreement:
    assert judge.references is not None  # noqa: S101 - measure_judge checks it
    references = load_references(judge.references)
    gate = asyncio.Semaphore(connections)

    async def rate(reference: Reference) -> tuple[float, float | None] | NotJudged:
        async with gate:
            try:
                result = await suite.judge_answer(reference.answer, reference.item, judging)
            except NotJudged as error:
                return error
        return reference.score, result.strict

    scored: list[tuple[float, float | None]] = []
    for rating in await asyncio.gather(*map(rate, references)):
        if isinstance(rating, NotJudged):
            raise rating
        scored.append(rating)
    bands = [
        (score_band(human_score, judge.levels), score_band(judge_score, judge.levels))
        for human_score, judge_score in scored
    ]
    return cohens_kappa(bands)


def agreement_text(suite: SuiteSettings, agreement: RaterAgreement) -> str:
    """Describes an agreement for people, with the interval and the suite's floor."""
    assert suite.judge is not None  # noqa: S101 - measure_judge checks it
    if agreement.kappa is None or agreement.low is None or agreement.high is None:
        return (
            f"suite {suite.name}: the {agreement.n} references and the judge "
            f"{suite.judge.target.name} all have the same score, so agreement cannot be "
            "estimated; add references with other scores"
        )
    return (
        f"suite {suite.name}: on {agreement.n} human references the judge "
        f"{suite.judge.target.name} has Cohen's kappa {agreement.kappa:.2f} (95 % interval "
        f"{agreement.low:.2f} to {agreement.high:.2f}), the floor is "
        f"{suite.judge.min_agreement:.2f}"
    )


def demand_agreement(suite: SuiteSettings, agreement: RaterAgreement) -> None:
    """Refuses a judge below the suite's floor. Raises JudgeUnfit with the measurement."""
    judge = suite.judge
    assert judge is not None  # noqa: S101 - measure_judge checks it
    if agreement.kappa is None:
        raise JudgeUnfit(agreement_text(suite, agreement))
    if agreement.kappa < judge.min_agreement:
        raise JudgeUnfit(
            f"{agreement_text(suite, agreement)}; fix the rubric or take another judge"
        )
