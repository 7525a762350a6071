"""Estimates what a proof from this traffic would take: requests, money and a person's minutes.

The numbers of labels are for a claim within 10 points, equal models and a judge whose
preference has a correlation of 0.6 with people's (statistics.md §1.23). Pure.
"""

from dataclasses import dataclass
from typing import Final

from harness.app.attach.replacements import count_cost
from harness.app.attach.traffic_survey import ModelTraffic
from harness.providers.models.catalogue import CatalogueEntry
from harness.routing.capture import MOST_OF_A_CALLER

PAIRS: Final = 3_000  # a draw takes no more of a log
# Labels by the drawn callers, as measured: the median, and the number that suffices in 80 % of
# the cases. With fewer callers than the last, many labellings end without a verdict.
LABELS_BY_CALLERS: Final = ((3_000, 74, 143), (500, 86, 173), (200, 107, 199))
FEWEST_CALLERS: Final = LABELS_BY_CALLERS[-1][0]
LABEL_S: Final = 20
POINTS: Final = 10
# Requests that the incumbent answers again, to see whether the records are stale.
STALE_CHECKS: Final = 60
# Of a judge's call, beside the question and both answers. The judge sees each pair in both
# orders.
_RUBRIC_TOKENS: Final = 600
_PREFERENCE_TOKENS: Final = 150
_ORDERS: Final = 2


@dataclass(frozen=True, slots=True)
class ProofEffort:
    """What a proof would take. Money in US dollars; None if a price or the tokens are
    unknown.
    """

    items: int  # drawn requests that the candidate answers
    callers: int  # of these requests; one without a caller counts on its own
    reasked: int  # requests that the incumbent answers again
    candidate_usd: float | None
    incumbent_usd: float | None
    judge_calls: int
    judge_input_tokens: int | None
    judge_output_tokens: int | None
    judge_usd: float | None

    @property
    def labels(self) -> int:
        """The labels of one labelling in two until its verdict."""
        return self._measured[1]

    @property
    def labels_80(self) -> int:
        """The labels that suffice in 80 % of the labellings."""
        return self._measured[2]

    @property
    def _measured(self) -> tuple[int, int, int]:
        """The largest measured draw that has no more callers, or else the smallest."""
        fitting = (draw for draw in LABELS_BY_CALLERS if draw[0] <= self.callers)
        return next(fitting, LABELS_BY_CALLERS[-1])

    @property
    def minutes(self) -> tuple[int, int]:
        """A person's minutes: the median, and those that suffice in 80 % of the cases."""
        return round(self.labels * LABEL_S / 60), round(self.labels_80 * LABEL_S / 60)


def estimate_effort(
    traffic: ModelTraffic,
    incumbent: CatalogueEntry | None,
    candidate: CatalogueEntry | None,
    judge: CatalogueEntry | None,
) -> ProofEffort:
    """Estimates the effort of a proof about a model's traffic, by the means of its requests."""
    items = min(PAIRS, traffic.count_items(MOST_OF_A_CALLER))
    failed_share = traffic.failed / traffic.requests if traffic.requests else 0.0
    reasked = min(items, STALE_CHECKS) + round(items * failed_share)
    calls = _ORDERS * (items + min(items, STALE_CHECKS))
    judge_input = None
    judge_output = None
    if traffic.counted:
        read = (traffic.input_tokens + _ORDERS * traffic.output_tokens) / traffic.counted
        judge_input = round(calls * (read + _RUBRIC_TOKENS))
        judge_output = calls * _PREFERENCE_TOKENS
    return ProofEffort(
        items=items,
        callers=min(items, traffic.count_items(1)),
        reasked=reasked,
        candidate_usd=_price_requests(traffic, candidate, items),
        incumbent_usd=_price_requests(traffic, incumbent, reasked),
        judge_calls=calls,
        judge_input_tokens=judge_input,
        judge_output_tokens=judge_output,
        judge_usd=_price_judge(judge, calls, judge_input, judge_output),
    )


def _price_requests(
    traffic: ModelTraffic, entry: CatalogueEntry | None, number: int
) -> float | None:
    """Returns the price of that many requests of the mean size; None if it is unknown."""
    cost_usd = count_cost(traffic, entry)
    return None if cost_usd is None else cost_usd / traffic.counted * number


def _price_judge(
    judge: CatalogueEntry | None,
    calls: int,
    input_tokens: int | None,
    output_tokens: int | None,
) -> float | None:
    if judge is None or judge.price is None or not calls:
        return None
    if input_tokens is None or output_tokens is None:
        return None
    prices = judge.price.for_answer(input_tokens / calls)
    return None if prices is None else prices.cost_usd(input_tokens, output_tokens)
