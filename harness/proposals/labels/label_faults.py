"""Checks a stored labelling against its registration, its samples and its own rules: whether
each draw follows from the seed and the labels before it.

Draws and labels have strictly increasing times, so their order shows which labels a draw's plan
knew.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from harness.frame.errors import NotFound
from harness.frame.plain_data import to_plain
from harness.frame.records.transaction import Transaction
from harness.gate.offline.label_evidence import DrawnPair, replan_labels
from harness.gate.offline.label_plan import LabelStep
from harness.gate.offline.people_claims import label_alpha
from harness.gate.offline.suite_claims import SuiteClaim
from harness.gate.run import Sample
from harness.gate.suite_plan import SuitePlan
from harness.proposals.labels.label_items import build_items, first_answers
from harness.proposals.labels.label_progress import LabellingState, load_state
from harness.proposals.labels.labelling import (
    LabelDraw,
    Labelling,
    build_drawn_pairs,
    draw_item,
    read_label,
)
from harness.proposals.labels.records import Labellings
from harness.routing.proposal import Proposal
from harness.routing.records.proposals import Proposals

_TOLERANCE: Final = 1e-9  # of figures that another numerical library may change


def remeasure_labels(
    case: SuiteClaim,
    proposal: Proposal,
    state: LabellingState | None,
    answers: Sequence[Sample],
) -> tuple[SuiteClaim, list[str]]:
    """Returns the case with labels from the stored labelling, and its differences as text.

    A case without labels stays as it is, because a verdict before the end of the labels cannot
    pass; so does a case whose labelling breaks its own rules.

    Args:
        answers: as for `list_label_faults`.
    """
    used = case.labels
    if used is None:
        return case, []
    suite = case.plan.suite
    if state is None:
        return case, [f"{suite}: the labelling {used.labelling} is missing"]
    differences = list_label_faults(state, proposal, case.plan, answers)
    if differences:  # such rows may not even fit together
        return case, [f"{suite}: {fault}" for fault in differences]
    labels = state.build_labels(case.plan, used.people, proposal)
    if len(used.people) != len(state.labelling.people) or to_plain(labels) != to_plain(used):
        differences = [f"{suite}: the stored labels differ from the labels of the verdict"]
    return replace(case, labels=labels), differences


def list_stored_faults(
    tx: Transaction, case: SuiteClaim, answers: Sequence[Sample]
) -> list[str]:
    """Lists how the labels of a verdict differ from its stored labelling."""
    if case.labels is None:
        return []
    try:
        labelling = Labellings(tx).get(case.labels.labelling)
    except NotFound as error:
        return [f"{case.plan.suite}: {error}"]
    proposal = Proposals(tx).get(labelling.proposal)
    return remeasure_labels(case, proposal, load_state(tx, labelling), answers)[1]


def list_label_faults(
    state: LabellingState,
    proposal: Proposal,
    plan: SuitePlan,
    answers: Sequence[Sample],
) -> list[str]:
    """Lists the differences between a labelling and its rules; empty for a valid labelling.

    Args:
        plan: of the labelled suite.
        answers: the candidate's, with or without texts.
    """
    labelling = state.labelling
    named = f"labelling {labelling.id}"
    faults = [
        *_find_registration_faults(labelling, proposal, plan),
        *_find_item_faults(labelling, plan, answers),
        *_find_label_faults(state),
    ]
    if not faults:
        faults = [*_find_draw_faults(state)]
    return [f"{named}: {fault}" for fault in faults]


def _find_registration_faults(
    labelling: Labelling, proposal: Proposal, plan: SuitePlan
) -> Iterator[str]:
    runs = proposal.runs.get(plan.suite)
    registered = (
        proposal.id,
        plan.suite,
        plan.suite_digest,
        proposal.candidate,
        runs.candidate if runs else "",
    )
    stored = (
        labelling.proposal,
        labelling.suite,
        labelling.suite_digest,
        labelling.candidate,
        labelling.run,
    )
    if stored != registered:
        yield f"it does not belong to the answers of {proposal.id}"
    design = labelling.design
    terms = (plan.claim.quality, plan.margin, label_alpha(plan, proposal.plans))
    if (design.claim, design.margin, design.alpha) != terms:
        yield f"its claim differs from the registration of {proposal.id}"


def _find_item_faults(
    labelling: Labelling, plan: SuitePlan, answers: Iterable[Sample]
) -> Iterator[str]:
    """Yields a fault if pairs, weights or predictions do not follow from the stored answers.

    Without texts, equal answers are known by their score: ½ without a judge.
    """
    ties = {item.item for item in labelling.items if item.judged is None}
    firsts = first_answers(answer for answer in answers if answer.position < plan.planned_items)
    expected = build_items(plan, firsts.values(), lambda sample: sample.item in ties)
    weights = [(item.item, item.weight, item.unit) for item in labelling.items]
    if weights != [(item.item, item.weight, item.unit) for item in expected]:
        yield "its pairs do not follow from the stored answers"
        return
    for item in labelling.items:
        answer = firsts[item.item]
        score = 0.5 if answer.strict is None else answer.strict
        # An empty answer is a loss, and a deleted text may have been empty.
        is_loss = item.judged == 0.0 and (answer.strict is None or not answer.answer.strip())
        if item.judged is None and score != 0.5:
            yield f"pair {item.item} counts as equal answers, but has another score"
        elif item.judged not in (None, score) and not is_loss:
            yield f"the judge's preference of pair {item.item} differs from its score"


def _find_label_faults(state: LabellingState) -> Iterator[str]:
    """Yields a fault for each label of another person, at another time, or with another
    meaning.
    """
    draws = {draw.number: draw for draw in state.draws}
    given: set[tuple[int, str]] = set()
    for label in state.labels:
        draw = draws.get(label.number)
        if draw is None:
            yield f"label {label.id} belongs to no draw"
            continue
        if label.person not in draw.people:
            yield f"label {label.id} is of a person who did not get pair {label.number}"
        if (label.number, label.person) in given:
            yield f"label {label.id} follows another label of pair {label.number}"
        if label.preference is not None:
            given.add((label.number, label.person))
        preference, _ = read_label(state.labelling, draw, label.person, label.choice, ())
        if label.preference != preference:
            yield f"label {label.id} does not say what its person chose"
    times = [*(draw.at for draw in state.draws), *(label.at for label in state.labels)]
    is_early = any(
        label.at <= draws[label.number].at for label in state.labels if label.number in draws
    )
    begun = [state.labelling.created_at, *times]
    if is_early or len(set(times)) < len(times) or min(begun) != begun[0]:
        yield "the times of its draws and labels have no order"


def _find_draw_faults(state: LabellingState) -> Iterator[str]:
    """Yields a fault for each draw that does not follow from the seed and the labels before."""
    labelling = state.labelling
    blocks = labelling.list_blocks()
    open_blocks = [block for block in blocks if block.open]
    if len(state.draws) > len(open_blocks):
        yield "it has more draws than blocks of pairs"
        return
    pairs = [block.pairs for block in blocks]
    steps = replan_labels(pairs, _list_completed(state), labelling.design)
    for number, (draw, step) in enumerate(zip(state.draws, steps, strict=True), start=1):
        if draw.number != number:
            yield f"draw {number} is missing"
            return
        if draw.people != labelling.choose_people(number):
            yield f"draw {number} is for other people than its seed gives"
        if not _is_close(LabelStep.from_json(draw.step), step):
            yield f"draw {number} has another plan than the labels before it give"
            return
        if draw_item(labelling, open_blocks[number - 1], number).item != draw.item:
            yield f"draw {number} is of another pair than its seed gives"
            return


def _list_completed(state: LabellingState) -> Iterator[Sequence[DrawnPair]]:
    """Yields for each draw the earlier pairs that are complete since the draw before."""
    open_draws: list[LabelDraw] = []
    for draw in state.draws:
        before = [label for label in state.labels if label.at < draw.at]
        pairs = build_drawn_pairs(state.labelling, open_draws, before)
        done = [pair.unacceptable is not None for pair in pairs]
        yield [pair for pair, is_done in zip(pairs, done, strict=True) if is_done]
        open_draws = [one for one, is_done in zip(open_draws, done, strict=True) if not is_done]
        open_draws.append(draw)


def _is_close(stored: LabelStep, planned: LabelStep) -> bool:
    """Tells whether two steps agree within `_TOLERANCE`."""
    for name, values in stored.as_json().items():
        others = planned.as_json()[name]
        if len(values) != len(others):
            return False
        for value, other in zip(values, others, strict=True):
            if not math.isclose(value, other, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
                return False
    return True
