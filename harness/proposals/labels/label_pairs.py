"""Starts labellings, shows pairs to people, stores their labels, and says whether the labels
suffice.

A person sees a request and two answers in random order. No answer of this module to a labeller
names a model, a score, the judge's preference or the evidence before the labelling has ended:
a person who knows them labels differently.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Final

from harness.frame.errors import Conflict, InputError, NotAllowed, NotFound
from harness.frame.people.access import Actor, PrincipalKind, Role
from harness.frame.people.records import PersonLinks, Principals
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.gate.offline.label_evidence import plan_next_label
from harness.gate.offline.label_plan import LabelDesign
from harness.gate.offline.people_claims import label_alpha
from harness.gate.suite_plan import SuitePlan
from harness.proposals.context import ProposalsContext, dry_run_context
from harness.proposals.labels.blindness import find_blind_suites, list_labelled_suites
from harness.proposals.labels.expected_labels import describe_forecast
from harness.proposals.labels.label_items import load_items, load_texts
from harness.proposals.labels.label_progress import (
    LabellingState,
    LabelProgress,
    build_progress,
    load_state,
)
from harness.proposals.labels.labelling import (
    LabelChoice,
    LabelDraw,
    Labelling,
    PairLabel,
    ShownAnswer,
    build_drawn_pairs,
    draw_item,
    read_label,
)
from harness.proposals.labels.records import LabelDraws, Labellings, Labels
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Proposals

NO_ANSWER: Final = "(no answer)"
LABELLING_END: Final = "labelling.end"  # the audit event
MOST_LISTED: Final = 50  # labellings


@dataclass(frozen=True, slots=True)
class ShownPair:
    """A pair as its labeller sees it. number: of the draw. labelled: this person's labels."""

    labelling: str
    number: int
    request: str
    a: str
    b: str
    labelled: int


@dataclass(frozen=True, slots=True)
class NextPair:
    """The next pair for a person. pair: None if there is no pair; `progress` says why."""

    pair: ShownPair | None
    progress: LabelProgress


def start_labelling(
    ctx: ProposalsContext,
    actor: Actor,
    proposal: str,
    *,
    suite: str | None = None,
    people: Sequence[str] = (),
) -> LabelProgress:
    """Fixes pairs, people and claim of a labelling. Needs a proposer.

    Args:
        suite: None for the first suite that people still have to label.
        people: names, among whom the pairs are drawn at random; empty for the actor alone.

    Raises InputError for runs that have not ended, too few pairs or an unknown suite, NotFound,
    and Conflict for a labelling that exists or a decided proposal.
    """
    actor.require(Role.PROPOSER)
    with ctx.store.write() as tx:
        tx.serialize()
        stored = Proposals(tx).get(proposal)
        begun = {labelling.suite for labelling in Labellings(tx).of_proposal(stored.id)}
        plan = _find_plan(stored, suite, begun)
        check_undecided(stored, plan.suite)
        if plan.suite in begun:
            raise Conflict(
                f"{stored.id} has a labelling of suite {plan.suite!r}: a second one would be a "
                f"second chance. Continue it by `swapproof label {stored.route}`"
            )
        principals = _find_people(tx, people, actor)
        items = load_items(tx, stored, plan)
        new = Labelling(
            id=ctx.chance.token("lb_"),
            proposal=stored.id,
            suite=plan.suite,
            suite_digest=plan.suite_digest,
            candidate=stored.candidate,
            run=stored.runs[plan.suite].candidate,
            people=principals,
            design=_build_design(stored, plan),
            items=items,
            seed=ctx.chance.secret(),
            author=actor.principal,
            created_at=ctx.clock.now(),
        )
        Labellings(tx).add(new)
        details = {"proposal": stored.id, "suite": plan.suite, "people": list(principals)}
        AuditLog(tx).append(actor, "labelling.start", new.id, details)
        state = LabellingState(new, (), ())
        # Equal answers may be enough without a label.
        progress = _record_end(tx, actor, state)
    with ctx.store.read() as tx:  # the forecast takes a second, and needs no lock
        return replace(progress, forecast=describe_forecast(tx, state))


def plan_labelling(
    ctx: ProposalsContext,
    actor: Actor,
    proposal: str,
    *,
    suite: str | None = None,
    people: Sequence[str] = (),
) -> LabelProgress:
    """Shows the labelling that `start_labelling` would start, with its forecast, and starts
    nothing. Raises as `start_labelling`.
    """
    return start_labelling(dry_run_context(ctx), actor, proposal, suite=suite, people=people)


def find_labelling(ctx: ProposalsContext, name: str, suite: str | None = None) -> str:
    """Finds the newest labelling by id, proposal, route or suite; empty without one, and for a
    route or suite with a newer proposal that people have to label.

    Args:
        suite: None for any; if the newest labelling has ended, then another suite of its
            proposal comes next.
    """
    with ctx.store.read() as tx:
        for labelling in Labellings(tx).newest(MOST_LISTED):
            proposal = Proposals(tx).get(labelling.proposal)
            if name == labelling.id:
                return labelling.id
            if suite not in (None, labelling.suite):
                continue
            if name == labelling.suite:
                return "" if _has_newer(tx, name, proposal) else labelling.id
            if name in (labelling.proposal, proposal.route):
                if _has_newer(tx, name, proposal):
                    return ""
                return labelling.id if suite else _find_next(tx, proposal, labelling)
    return ""


def _find_next(tx: Transaction, proposal: Proposal, newest: Labelling) -> str:
    """Returns the id of the proposal's labelling to continue: the newest, or another one if the
    newest has ended; empty if a suite has no labelling yet.
    """
    if not find_blind_suites(tx, proposal):
        return newest.id
    begun = Labellings(tx).of_proposal(proposal.id)
    for labelling in (newest, *begun):
        if not load_state(tx, labelling).evidence.is_decided:
            return labelling.id
    is_whole = list_labelled_suites(proposal) <= {labelling.suite for labelling in begun}
    return newest.id if is_whole else ""


def _has_newer(tx: Transaction, name: str, labelled: Proposal) -> bool:
    """Tells whether people have to label a newer proposal of a route or suite."""
    newer = [one for one in Proposals(tx).open() if one.created_at > labelled.created_at]
    for proposal in newer:
        suites = find_blind_suites(tx, proposal)
        if name in suites or (suites and name == proposal.route):
            return True
    return False


def find_proposal(ctx: ProposalsContext, name: str) -> tuple[str, str | None]:
    """Finds the newest proposal to label, by its id, route or suite. Also returns the suite if
    the name is one. Raises NotFound.
    """
    with ctx.store.read() as tx:
        for proposal in Proposals(tx).list():
            suites = [plan.suite for plan in proposal.plans]
            if name in (proposal.id, proposal.route, *suites) and proposal.runs:
                is_suite = name not in (proposal.id, proposal.route)
                return proposal.id, name if is_suite else None
    raise NotFound(
        f"{name!r} is no route, suite or proposal with answers to label: `swapproof proposal "
        "create ROUTE PROVIDER/MODEL` compares a candidate first"
    )


def list_labellings(ctx: ProposalsContext) -> Sequence[LabelProgress]:
    """Lists the newest labellings, without the evidence of those that go on."""
    with ctx.store.read() as tx:
        return [
            build_progress(tx, load_state(tx, labelling))
            for labelling in Labellings(tx).newest(MOST_LISTED)
        ]


def load_progress(ctx: ProposalsContext, labelling: str) -> LabelProgress:
    """Loads the state of a labelling. Raises NotFound."""
    with ctx.store.read() as tx:
        state = load_state(tx, Labellings(tx).get(labelling))
        progress = build_progress(tx, state)
        if progress.ended or progress.closed:
            return progress
        return replace(progress, forecast=describe_forecast(tx, state))


def show_next_pair(
    ctx: ProposalsContext,
    actor: Actor,
    labelling: str,
    *,
    skipped: bool = False,
) -> NextPair:
    """Shows the actor's open pair, or draws a new one for the actor.

    Args:
        skipped: whether to show skipped pairs again. Draws that chance gives to other people
            wait for them.

    Raises NotAllowed for a person who is not one of the labelling's people, and InputError if
    the texts were deleted.
    """
    actor.require(Role.PROPOSER)
    with ctx.store.write() as tx:
        tx.serialize()
        state = load_state(tx, Labellings(tx).get(labelling))
        _check_person(state.labelling, actor)
        if state.evidence.is_decided:
            return NextPair(None, build_progress(tx, state))
        check_undecided(Proposals(tx).get(state.labelling.proposal), state.labelling.suite)
        draw = _find_open_draw(state, actor.principal, skipped=skipped)
        while draw is None:
            new = _draw(ctx, state)
            if new is None:
                return NextPair(None, build_progress(tx, state))
            LabelDraws(tx).add(new)
            state = LabellingState(state.labelling, (*state.draws, new), state.labels)
            if state.evidence.is_decided:  # whatever the label of this pair would be
                return NextPair(None, _record_end(tx, actor, state))
            draw = new if actor.principal in new.people else None
        pair = _show(ctx, tx, state, draw, actor.principal)
        return NextPair(pair, build_progress(tx, state))


def give_label(
    ctx: ProposalsContext,
    actor: Actor,
    labelling: str,
    number: int,
    choice: LabelChoice,
    *,
    unacceptable: Sequence[ShownAnswer] = (),
) -> LabelProgress:
    """Stores the actor's answer about a pair that was shown. It never changes afterwards.

    Args:
        choice: by the letters of the answers.
        unacceptable: the answers that no user should get.

    Raises Conflict for another person's pair, for a pair that has the actor's label or was not
    shown yet, and after the end, NotAllowed, NotFound.
    """
    actor.require(Role.PROPOSER)
    with ctx.store.write() as tx:
        tx.serialize()
        state = load_state(tx, Labellings(tx).get(labelling))
        _check_person(state.labelling, actor)
        if state.evidence.is_decided:
            raise Conflict(f"{labelling} has ended, and a later label would change its verdict")
        check_undecided(Proposals(tx).get(state.labelling.proposal), state.labelling.suite)
        draw = next((draw for draw in state.draws if draw.number == number), None)
        if draw is None:
            raise NotFound(f"{labelling} has no pair {number}; ask for the next pair first")
        if actor.principal not in draw.people:
            raise Conflict(f"pair {number} is for another person; ask for your next pair")
        if (number, actor.principal) in state.given:
            raise Conflict(f"pair {number} has your label, and a label never changes")
        is_next = draw == _find_open_draw(state, actor.principal, skipped=False)
        if not is_next and (number, actor.principal) not in state.skipped:
            raise Conflict(f"pair {number} was not shown to you yet; ask for your next pair")
        preference, harm = read_label(
            state.labelling, draw, actor.principal, choice, unacceptable
        )
        new = PairLabel(
            id=ctx.chance.token("l_"),
            labelling=labelling,
            number=number,
            person=actor.principal,
            choice=choice,
            preference=preference,
            unacceptable=harm,
            at=state.next_time(ctx.clock.now()),
        )
        Labels(tx).add(new)
        after = LabellingState(state.labelling, state.draws, (*state.labels, new))
        return _record_end(tx, actor, after)


def check_undecided(proposal: Proposal, suite: str) -> None:
    """Raises Conflict if labels of a suite can no longer change the proposal's verdict, which
    people decide.
    """
    if suite not in list_labelled_suites(proposal):
        return  # labels of other suites decide nothing
    is_open = proposal.phase in (ProposalPhase.PROPOSED, ProposalPhase.EVALUATING)
    if not is_open or proposal.verdict is not None:
        raise Conflict(
            f"{proposal.id} is decided ({proposal.phase_text}), so its labels cannot change "
            "any more: propose again"
        )


def _record_end(tx: Transaction, actor: Actor, state: LabellingState) -> LabelProgress:
    """Returns the progress, and writes an audit event if the labelling has ended now."""
    progress = build_progress(tx, state)
    if progress.ended:
        details = {
            "proposal": progress.proposal,
            "suite": progress.suite,
            "labels": progress.labels,
            "given": progress.given,
            "verdict": progress.verdict,
        }
        AuditLog(tx).append(actor, LABELLING_END, state.labelling.id, details)
    return progress


def _find_plan(proposal: Proposal, suite: str | None, begun: AbstractSet[str]) -> SuitePlan:
    """Finds a suite by its name, or the first one that people have to label.

    Args:
        begun: the suites with a labelling.
    """
    plans = [plan for plan in proposal.plans if suite is None or plan.suite == suite]
    by_people = list_labelled_suites(proposal)
    wanted = by_people - begun or by_people
    if suite is None and wanted:
        plans = [plan for plan in plans if plan.suite in wanted][:1]
    if suite is None and len(plans) > 1:
        names = ", ".join(plan.suite for plan in plans)
        raise InputError(f"{proposal.id} has several suites ({names}): name one by --suite")
    if not plans:
        raise InputError(
            f"{proposal.id} has no suite {suite or ''}: its evals have to be registered first"
        )
    return plans[0]


def _find_people(tx: Transaction, names: Sequence[str], actor: Actor) -> tuple[str, ...]:
    """Returns the principals of different people; the actor's without names. A service has no
    preference.
    """
    found = [] if names else [actor.principal]
    for name in names:
        principal = Principals(tx).named(name)
        if principal is None:
            raise NotFound(f"there is no person {name!r}; `swapproof person list` shows them")
        found.append(principal.id)
    for principal in Principals(tx).among(found).values():
        if principal.kind is PrincipalKind.SERVICE:
            raise InputError(
                f"{principal.name} is a service, and only people label: name them by --person"
            )
    people = PersonLinks(tx).people()
    if len({people.person(id_) for id_ in found}) < len(found):
        raise InputError("a person is named twice; name each person once")
    return tuple(found)


def _build_design(proposal: Proposal, plan: SuitePlan) -> LabelDesign:
    alpha = label_alpha(plan, proposal.plans)
    return LabelDesign(plan.claim.quality, plan.margin, alpha)


def _check_person(labelling: Labelling, actor: Actor) -> None:
    if actor.principal not in labelling.people:
        raise NotAllowed(
            f"{actor.name} is not one of the people of {labelling.id}; they were fixed when "
            "the labelling began, because chance gives each pair to one of them"
        )


def _find_open_draw(state: LabellingState, person: str, *, skipped: bool) -> LabelDraw | None:
    """Finds the first draw of a person without a label. A skipped draw comes only if asked."""
    hidden = state.given if skipped else state.given | state.skipped
    return next(
        (
            draw
            for draw in state.draws
            if person in draw.people and (draw.number, person) not in hidden
        ),
        None,
    )


def _draw(ctx: ProposalsContext, state: LabellingState) -> LabelDraw | None:
    """Plans and draws the next pair; None if each block has its pair."""
    labelling = state.labelling
    number = len(state.draws) + 1
    blocks = labelling.list_blocks()
    open_blocks = [block for block in blocks if block.open]
    if number > len(open_blocks):
        return None
    pairs = build_drawn_pairs(labelling, state.draws, state.labels)
    step = plan_next_label([block.pairs for block in blocks], pairs, labelling.design)
    return LabelDraw(
        labelling.id,
        number,
        draw_item(labelling, open_blocks[number - 1], number).item,
        labelling.choose_people(number),
        step.as_json(),
        state.next_time(ctx.clock.now()),
    )


def _show(
    ctx: ProposalsContext,
    tx: Transaction,
    state: LabellingState,
    draw: LabelDraw,
    person: str,
) -> ShownPair:
    """Builds a pair for its labeller. Raises InputError if retention deleted its texts."""
    labelling = state.labelling
    runs = Proposals(tx).get(labelling.proposal).runs[labelling.suite]
    texts = load_texts(ctx, tx, labelling.suite, runs, draw.item)
    answers = [texts.candidate or NO_ANSWER, texts.incumbent or NO_ANSWER]
    if not labelling.shows_candidate_first(draw.number, person):
        answers.reverse()
    labelled = sum(1 for _, labeller in state.given if labeller == person)
    return ShownPair(labelling.id, draw.number, texts.request, answers[0], answers[1], labelled)
