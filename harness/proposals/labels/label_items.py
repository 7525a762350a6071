"""The pairs of a labelling: the answers of both models to the items of a suite, with their
weights and the judge's preferences.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.frame.errors import InputError
from harness.frame.formatting import format_quantity
from harness.frame.records.transaction import Transaction
from harness.gate.run import RunState, Sample
from harness.gate.suite_plan import SuitePlan
from harness.proposals.context import ProposalsContext
from harness.proposals.labels.labelling import LabelledItem
from harness.routing.proposal import Proposal, SuiteRuns
from harness.routing.records.runs import EvalRuns

_FEWEST_PAIRS: Final = 10


def load_items(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
    plan: SuitePlan,
) -> tuple[LabelledItem, ...]:
    """Lists the pairs with their weights, the judge's preferences and the equal answers."""
    runs = proposal.runs.get(plan.suite)
    if runs is None or EvalRuns(tx).get(runs.candidate).state is not RunState.DONE:
        raise InputError(
            f"{proposal.id}: the candidate has not answered suite {plan.suite!r} yet; label "
            "after its evals"
        )
    answers = first_answers(EvalRuns(tx).samples(runs.candidate))
    others = first_answers(EvalRuns(tx).samples(runs.incumbent))
    ordered = sorted(answers.values(), key=lambda sample: sample.position)
    weights = _weigh(plan, len(ordered))
    items = []
    for sample, weight in zip(ordered, weights, strict=False):
        theirs = incumbent_answer(ctx, plan.suite, sample.item, others)
        judged = None
        if not is_equal(sample.answer, theirs):
            judged = _read_preference(sample)
        items.append(LabelledItem(sample.item, weight, judged))
    if len(items) < _FEWEST_PAIRS:
        raise InputError(
            f"suite {plan.suite!r} has {format_quantity(len(items), 'pair')}; a labelling "
            f"needs at least {_FEWEST_PAIRS}"
        )
    return tuple(items)


def _read_preference(sample: Sample) -> float:
    """Returns the judge's preference; a judge that failed prefers neither."""
    if not sample.answer.strip():
        return 0.0
    return 0.5 if sample.strict is None else sample.strict


def first_answers(samples: Iterable[Sample]) -> dict[str, Sample]:
    found: dict[str, Sample] = {}
    for sample in samples:
        if sample.item not in found or sample.epoch < found[sample.item].epoch:
            found[sample.item] = sample
    return found


def incumbent_answer(
    ctx: ProposalsContext,
    suite: str,
    item: str,
    answers: Mapping[str, Sample],
) -> str:
    """Returns the incumbent's answer: of its run, or the answer that a user got."""
    if item in answers and answers[item].answer.strip():
        return answers[item].answer
    return ctx.suites.item_texts(suite, item)[1]


def is_equal(one: str, other: str) -> bool:
    """Tells whether two answers are mechanically equal: as texts, or as JSON values."""
    if one.strip() == other.strip():
        return True
    if one.strip()[:1] not in ("{", "[") or other.strip()[:1] not in ("{", "["):
        return False
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


def _weigh(plan: SuitePlan, items: int) -> list[float]:
    """Gives all callers of a plan equal weight, and a caller's items equal shares of it."""
    sizes: Sequence[int] = plan.cluster_sizes or (1,) * items
    raw = [1.0 / size for size in sizes for _ in range(size)][:items]
    total = sum(raw)
    return [weight / total for weight in raw]


@dataclass(frozen=True, slots=True)
class PairTexts:
    """The texts of a pair; an answer is empty if the model gave none."""

    request: str
    candidate: str
    incumbent: str


def load_texts(
    ctx: ProposalsContext,
    tx: Transaction,
    suite: str,
    runs: SuiteRuns,
    item: str,
) -> PairTexts:
    """Loads the texts of a pair. All are empty after their retention."""
    sample = first_answers(EvalRuns(tx).samples_of(runs.candidate, [item]))[item]
    others = first_answers(EvalRuns(tx).samples_of(runs.incumbent, [item]))
    return PairTexts(
        sample.prompt or ctx.suites.item_texts(suite, item)[0],
        sample.answer,
        incumbent_answer(ctx, suite, item, others),
    )
