"""Compares a shadow's pairs by its judge, as the judge of a suite of traffic does: with the
same prompt and reading, blind, in both orders, within the same rate limits and monthly cap.

It calls the judge's provider with the provider's first key, and keeps no text.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Final

from harness.canary.shadow_verdict import ShadowJudge, design_of
from harness.evals.month_spending import SpendingPurpose
from harness.evals.settings import JudgeSettings
from harness.evals.spending_meter import SpendingMeter, StoredSpending
from harness.frame.errors import InputError, SpendingPaused, StoreUnavailable
from harness.gate.suite_plan import ORDERS_DISAGREE
from harness.operations.context import Context
from harness.operations.shadow_judging import BATCH, PairJudgement
from harness.providers.records import Providers
from harness.providers.registry import provider_secrets
from harness.providers.target import Provider, Target
from harness.routing.capture import CapturedRequest
from harness.routing.reliability.users_first import account_of
from harness.routing.shadow import ShadowTerms
from harness.routing.shadow_pair import CANDIDATE
from harness.routing.shadow_score import ScoreReason

if TYPE_CHECKING:
    from evals.runner.provider_client import EvalProviderClient
    from evals.runner.rate_gate import RateGates
    from evals.scorers import AnswerJudge
    from evals.suites.items import Item

_UNREADABLE: Final = "the judge's answer could not be read"


def choose_judge(name: str, criteria: str | None = None, anyway: str = "") -> ShadowJudge:
    """Builds a person's choice of a judge.

    Args:
        criteria: None for the usual rubric.
    """
    from evals.scorers.preference import DEFAULT_CRITERIA  # noqa: PLC0415 - only with a judge

    return ShadowJudge(name, DEFAULT_CRITERIA if criteria is None else criteria, anyway)


class ProviderPairJudge:
    """Implements `shadow_judging.PairJudge`.

    build_paces: makes the providers' rate limits. allowed: exceptions for addresses, as
    `api_base_rules` reads them.
    """

    def __init__(
        self,
        ctx: Context,
        build_paces: "Callable[[], RateGates]",
        *,
        allowed: Collection[str] = (),
    ) -> None:
        self._ctx = ctx
        self._build_paces = build_paces
        self._allowed = allowed

    def compare(
        self, terms: ShadowTerms, pairs: Sequence[CapturedRequest]
    ) -> Sequence[PairJudgement | None]:
        """See `PairJudge`. A judge whose provider is gone fails on every pair."""
        target = Target.from_name(terms.judge)
        with self._ctx.store.read() as tx:
            provider = Providers(tx).all().get(target.provider)
        if provider is None:
            failure = f"there is no provider {target.provider!r}"
            return [PairJudgement(None, failure=failure)] * len(pairs)
        clear = provider_secrets.decrypt_headers(provider, self._ctx.cipher)
        keys = provider_secrets.keys_of_provider(self._ctx, provider)
        key = keys[0].secret if keys else None
        meter = SpendingMeter(
            StoredSpending(self._ctx.store),
            self._ctx.clock,
            SpendingPurpose.JUDGES,
        )
        try:
            return asyncio.run(self._compare(terms, target, clear, key, meter, pairs))
        finally:
            meter.refresh()

    async def _compare(
        self,
        terms: ShadowTerms,
        target: Target,
        provider: Provider,
        key: str | None,
        meter: SpendingMeter,
        pairs: Sequence[CapturedRequest],
    ) -> Sequence[PairJudgement | None]:
        from evals.runner.judge_calibration import Judge  # noqa: PLC0415 - only with a judge

        settings = JudgeSettings(target)
        client = self._open_client(settings, provider, key, meter)
        judging = Judge(settings, provider, client)
        try:
            return await asyncio.gather(
                *(_compare_pair(terms, judging, pair) for pair in pairs)
            )
        finally:
            await judging.close()

    def _open_client(
        self,
        settings: JudgeSettings,
        provider: Provider,
        key: str | None,
        meter: SpendingMeter,
    ) -> "EvalProviderClient":
        from evals.runner.provider_client import (  # noqa: PLC0415 - only with a judge
            EvalProviderClient,
            ModelSpending,
        )
        from router.upstream.transports import ProviderClient  # noqa: PLC0415

        target = settings.target
        account = account_of(provider.api_base, key or "")
        price = provider.prices.get(target.model)
        return EvalProviderClient(
            provider,
            key,
            calls=ProviderClient,
            connections=BATCH,
            timeout_s=settings.timeout_s,
            pace=self._build_paces().gate_for(provider.name, target.model, account),
            allowed=self._allowed,
            spending=ModelSpending(meter, price, target.name),
        )


async def _compare_pair(
    terms: ShadowTerms, judging: "AnswerJudge", pair: CapturedRequest
) -> PairJudgement | None:
    from evals.runner.judge_calibration import track_judge_bill  # noqa: PLC0415
    from evals.scorers import NotJudged  # noqa: PLC0415 - only with a judge
    from evals.scorers.preference import PREFERENCE, is_equal, preference  # noqa: PLC0415
    from evals.traffic.items import logged_answer  # noqa: PLC0415

    null = design_of(terms).theta0
    item = _build_item(pair)
    if item is None:
        return PairJudgement(null, ScoreReason.NOT_SHOWN)
    answer = logged_answer(pair.content.get(CANDIDATE))
    if is_equal(answer, str(item.target)):
        return PairJudgement(0.5, ScoreReason.EQUAL)
    options = {**PREFERENCE.defaults, "criteria": terms.criteria}
    with track_judge_bill() as bill:
        try:
            result = await preference(judging, answer, item, options)
        except (SpendingPaused, StoreUnavailable):
            return None
        except NotJudged as error:
            return PairJudgement(
                None, calls=bill.calls, cost_usd=bill.cost_usd, failure=str(error)
            )
    if result.rule == ORDERS_DISAGREE:
        return PairJudgement(
            null, ScoreReason.ORDERS_DISAGREE, calls=bill.calls, cost_usd=bill.cost_usd
        )
    failure = _UNREADABLE if result.strict is None else ""
    return PairJudgement(
        result.strict, calls=bill.calls, cost_usd=bill.cost_usd, failure=failure
    )


def _build_item(pair: CapturedRequest) -> "Item | None":
    """Builds the judge's view of a pair, with the incumbent's answer as target; None if the
    request cannot be shown, such as one with a picture.
    """
    from evals.suites.conversation import (  # noqa: PLC0415 - only with a judge
        FIELDS,
        check_messages,
        find_input_text,
    )
    from evals.suites.items import Item  # noqa: PLC0415
    from evals.traffic.items import has_left_out_part, logged_answer  # noqa: PLC0415

    if has_left_out_part(pair):
        return None
    try:
        messages = check_messages(pair.content.get("messages"), f"pair {pair.id}")
    except InputError:
        return None
    fields = {name: pair.content[name] for name in FIELDS if pair.content.get(name)}
    return Item(
        pair.id,
        find_input_text(messages),
        logged_answer(pair.content.get("answer")),
        metadata={"messages": list(messages), **fields},
    )
