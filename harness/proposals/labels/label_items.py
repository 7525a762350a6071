"""The pairs of a labelling: the answers of both models to the items of a suite, with their
weights and the judge's preferences.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.frame.errors import InputError, SwapproofError
from harness.frame.formatting import format_quantity
from harness.frame.plain_data import canonical_json
from harness.frame.records.transaction import Transaction
from harness.gate.run import RunState, Sample, SampleError
from harness.gate.suite_plan import SuitePlan
from harness.proposals.context import ProposalsContext
from harness.proposals.labels.labelling import LabelledItem
from harness.proposals.labels.shown_conversation import write_answer, write_conversation
from harness.routing.proposal import Proposal, SuiteRuns
from harness.routing.records.runs import EvalRuns

_FEWEST_PAIRS: Final = 10


def load_items(
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
    answers, others = (
        first_answers(EvalRuns(tx).samples(run, below=plan.planned_items))
        for run in (runs.candidate, runs.incumbent)
    )
    _check_texts(proposal, plan, answers, others)
    items = build_items(
        plan,
        answers.values(),
        lambda sample: is_equal(sample.answer, others[sample.item].answer),
    )
    if len(items) < _FEWEST_PAIRS:
        raise InputError(
            f"suite {plan.suite!r} has {format_quantity(len(items), 'pair')}; a labelling "
            f"needs at least {_FEWEST_PAIRS}"
        )
    return items


def build_items(
    plan: SuitePlan,
    answers: Iterable[Sample],
    is_tie: Callable[[Sample], bool],
) -> tuple[LabelledItem, ...]:
    """Builds the pairs from the candidate's first answers, in the registered order. All callers
    have equal weight, and a caller's pairs have equal shares of it.

    Args:
        is_tie: whether an answer is mechanically equal to the incumbent's.
    """
    ordered = sorted(answers, key=lambda sample: sample.position)
    asked = [
        (unit, sample)
        for unit, sample in zip(_list_units(plan, len(ordered)), ordered, strict=False)
        if sample.error is not SampleError.UNLABELLED  # no model was asked
    ]
    sizes = Counter(unit for unit, _ in asked)
    return tuple(
        LabelledItem(
            sample.item,
            1.0 / (len(sizes) * sizes[unit]),
            None if is_tie(sample) else _read_preference(sample),
            unit,
        )
        for unit, sample in asked
    )


def _check_texts(
    proposal: Proposal,
    plan: SuitePlan,
    answers: Mapping[str, Sample],
    others: Mapping[str, Sample],
) -> None:
    """Raises InputError for pairs whose answers are not both stored. Two deleted answers are
    equal as texts, but no tie.
    """
    if missing := len(answers.keys() - others.keys()):
        raise InputError(
            f"{proposal.id}: the incumbent has not answered {missing} of {len(answers)} items "
            f"of suite {plan.suite!r}; label after its evals"
        )
    if any(is_deleted(sample) for sample in (*answers.values(), *others.values())):
        raise InputError(
            f"{proposal.id}: the answers to suite {plan.suite!r} were deleted after their "
            "retention; propose again, and label sooner"
        )


def is_deleted(sample: Sample) -> bool:
    """Tells whether retention deleted a sample's texts. An empty answer has a prompt."""
    is_asked = sample.error is not SampleError.UNLABELLED
    return is_asked and not (sample.prompt or sample.answer)


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


def is_equal(one: str, other: str) -> bool:
    """Tells whether two answers are mechanically equal: as texts, or as JSON values."""
    if one.strip() == other.strip():
        return True
    if one.strip()[:1] not in ("{", "[") or other.strip()[:1] not in ("{", "["):
        return False
    try:
        return canonical_json(json.loads(one)) == canonical_json(json.loads(other))
    except ValueError:
        return False


def _list_units(plan: SuitePlan, items: int) -> list[int]:
    """Lists the caller of each item, as a number in the registered order."""
    sizes: Sequence[int] = plan.cluster_sizes or (1,) * items
    return [unit for unit, size in enumerate(sizes) for _ in range(size)][:items]


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
    """Loads the texts of a pair. Raises InputError if retention deleted an answer, because a
    missing answer would lose.
    """
    sample = first_answers(EvalRuns(tx).samples_of(runs.candidate, [item]))[item]
    others = first_answers(EvalRuns(tx).samples_of(runs.incumbent, [item]))
    if is_deleted(sample) or is_deleted(others[item]):
        raise InputError(
            f"suite {suite!r}: the answers of this pair were deleted after their retention. An "
            "approver closes the labelling by `swapproof label LABELLING --close REASON`; then "
            "propose again, and label sooner"
        )
    digest = EvalRuns(tx).get(runs.candidate).suite_digest
    return PairTexts(
        _write_request(ctx, suite, digest, sample),
        write_answer(sample.answer),
        write_answer(others[item].answer),
    )


def _write_request(ctx: ProposalsContext, suite: str, digest: str, sample: Sample) -> str:
    """Writes the request with its history, if the suite is still the measured one."""
    try:
        messages = ctx.suites.conversation(suite, sample.item)
        is_measured = ctx.suites.pin(suite).digest == digest
    except SwapproofError:
        messages = ()
        is_measured = False
    if messages and is_measured:
        return write_conversation(messages)
    prompt = sample.prompt or ctx.suites.item_texts(suite, sample.item)[0]
    if is_measured:
        return prompt
    return f"{prompt}\n\n(Earlier messages, if any, are unknown: suite {suite!r} has changed.)"
