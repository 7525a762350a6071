"""The leaderboard of a route lists every model that its present suites have measured. A
selection is a set of candidates that are proposed together; its best passed candidate
continues.

The page shows measurements and proves nothing: only a verdict lets a model serve. The functions
for selections only read verdicts and answers, and `harness.proposals.driver` applies
their result. One proposal in detail is in `harness.proposals.report`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from statistics import fmean
from typing import Final

from harness.frame.errors import ProofRefused
from harness.frame.formatting import format_points, format_usd
from harness.frame.records.transaction import Transaction
from harness.gate.offline.design import FUTILE
from harness.gate.offline.intervals import mean_interval
from harness.gate.run import AnswerColumns
from harness.gate.suite_plan import Claim, SuiteRole
from harness.gate.verdict import (
    Failed,
    Inconclusive,
    Passed,
    SuiteReport,
    Verdict,
)
from harness.proposals.candidates import candidate_rounds, candidates
from harness.proposals.candidates.candidates import RoundPlan
from harness.proposals.context import ProposalsContext
from harness.proposals.labels.blindness import find_blind_suites, hide_evidence
from harness.proposals.report.comparison import compute_arm_figures, is_large
from harness.providers.records import Targets
from harness.routing.candidate_schedule import REGISTERED, CandidateRound
from harness.routing.control import deprecations, routes
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import CandidateRounds, Proposals
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns
from harness.routing.records.verdicts import Verdicts
from harness.routing.table import Route

UNDECIDED_PHASES = (ProposalPhase.PROPOSED, ProposalPhase.EVALUATING)
ENDED_AT_GATE_PHASES = (ProposalPhase.REJECTED, ProposalPhase.CANCELLED)


@dataclass(frozen=True, slots=True)
class Finalist:
    """A candidate of a selection that passed, with the figures by which it is ranked."""

    proposal: Proposal
    delta: float  # candidate minus incumbent, a share of 1
    cost_usd: float | None  # of one answer; None if a price is unknown

    @property
    def text(self) -> str:
        """The figure that ranks it, for the sentence that ends the other finalists'
        proposals.
        """
        if self.proposal.claim is Claim.CHEAPER and self.cost_usd is not None:
            return f"{format_usd(self.cost_usd * 1000)} for 1,000 answers"
        return f"{format_points(self.delta)} points"

    @property
    def rank(self) -> tuple[float, float, str]:
        """The sort key of passed candidates: difference, cost, id. For the claim
        `cheaper_and_not_worse`, cost comes first.
        """
        cost = math.inf if self.cost_usd is None else self.cost_usd
        primary_key = -self.delta
        secondary_key = cost
        if self.proposal.claim is Claim.CHEAPER:
            primary_key, secondary_key = secondary_key, primary_key
        return primary_key, secondary_key, self.proposal.id


def primary_difference(verdict: Verdict, weights: Mapping[str, float]) -> float:
    """Returns candidate minus incumbent on the primary suites, a share of 1.

    Takes the gate's own weighted mean if there is one, otherwise the mean of the suites'
    differences by their weights.

    Args:
        weights: by suite, as registered.
    """
    primary_reports = [report for report in verdict.suites if report.role is SuiteRole.PRIMARY]
    weighted_means = [report for report in primary_reports if report.suite not in weights]
    if weighted_means:  # the gate's own weighted mean, over items that all suites have
        # Suites that people label are not part of the gate's mean.
        labelled = [report for report in primary_reports if report.figures.labels]
        if not labelled:
            return weighted_means[0].delta
        names = {report.suite for report in (*labelled, *weighted_means)}
        others = [report.suite for report in primary_reports if report.suite not in names]
        of_mean = sum(weights[suite] for suite in others)
        deltas = [weighted_means[0].delta, *(report.delta for report in labelled)]
        return fmean(deltas, [of_mean, *(weights[report.suite] for report in labelled)])
    deltas = [report.delta for report in primary_reports]
    return fmean(deltas, [weights[report.suite] for report in primary_reports])


def find_fault(members: Sequence[Proposal]) -> str:
    """Returns the reason why no member of a selection may continue; empty without a fault.

    The members' alphas add up to one candidate's alpha only if the number of members is the
    registered number.
    """
    registered_counts = {plan.candidates for member in members for plan in member.plans}
    if registered_counts != {len(members)}:
        numbers = ", ".join(map(str, sorted(registered_counts)))
        return f"the selection has {len(members)} candidates, but {numbers} were registered"
    if [member.place for member in members] != list(range(len(members))):
        return "the selection's candidates differ from the registered candidates"
    if len({(member.route, member.incumbent) for member in members}) > 1:
        return "the selection's candidates are not for the same swap"
    continued_ids = [
        m.id for m in members if m.phase not in (*UNDECIDED_PHASES, *ENDED_AT_GATE_PHASES)
    ]
    if continued_ids:
        return f"{continued_ids[0]} of the same selection has continued already"
    return ""


def rank_passed(tx: Transaction, members: Sequence[Proposal]) -> list[Finalist]:
    """Returns the passed members, best first; empty until the gate has decided on all
    members.
    """
    if any(
        member.phase in UNDECIDED_PHASES and not member.waits_for_rivals for member in members
    ):
        return []
    waiting = [member for member in members if member.waits_for_rivals]
    return sorted((_build_finalist(tx, member) for member in waiting), key=attrgetter("rank"))


def _build_finalist(tx: Transaction, proposal: Proposal) -> Finalist:
    """Builds a finalist from its stored verdict and answers. Raises ProofRefused if it did not
    pass.
    """
    verdict = Verdicts(tx).get(proposal.verdict or "")
    if not isinstance(verdict, Passed):
        raise ProofRefused(f"{proposal.id}: verdict {verdict.id} is {verdict.outcome}")
    weights = {plan.suite: plan.weight for plan in proposal.plans}
    costs = [
        sample.cost_usd
        for plan in proposal.plans
        for sample in EvalRuns(tx).outcomes(
            proposal.runs[plan.suite].candidate, below=plan.planned_items
        )
    ]
    known_costs = [cost for cost in costs if cost is not None]
    return Finalist(
        proposal=proposal,
        delta=primary_difference(verdict, weights),
        cost_usd=fmean(known_costs) if known_costs and len(known_costs) == len(costs) else None,
    )


ROUNDS_SHOWN: Final = 10
SHORTLIST_LENGTH: Final = 3
# Proposals to search for the incumbent's run with the most answers.
MOST_COMPARED: Final = 20


class Standing(StrEnum):
    """A model's result against the incumbent, in the words of the page."""

    INCUMBENT = "incumbent"
    BETTER = "better"
    NOT_WORSE = "not worse"
    OPEN = "open"  # the gate could not decide with all planned items
    HOPELESS = "hopeless"  # stopped early: its claim was out of reach
    WORSE = "worse"
    EARLIER = "measured against another model"
    MEASURED_NOW = "measured now"
    HIDDEN = "hidden until people have labelled"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class LeaderboardRow:
    """One model that was measured on the route's primary suites. Scores are shares of 1."""

    name: str  # provider/model
    target: str
    standing: Standing
    proposal: str = ""  # the newest; empty for the incumbent
    score: float | None = None
    score_low: float | None = None  # score_low, score_high: 95 % interval over items
    score_high: float | None = None
    delta: float | None = None  # minus the incumbent's score, on the same items
    delta_low: float | None = None
    delta_high: float | None = None
    items: int = 0
    usd_per_1000: float | None = None  # answers
    p50_s: float | None = None
    measured_at: datetime | None = None
    look: int = 1  # number of the look at these items
    is_cheapest_so_good: bool = False  # no other row beats it (`mark_frontier`)
    ending: str = ""  # when it ends, or that its provider does not list it


@dataclass(frozen=True)
class Leaderboard:
    route: str
    incumbent: str
    rows: Sequence[LeaderboardRow]
    schedule: str  # of candidates, as text; empty without a schedule
    next_round_at: datetime | None
    obstacle: str  # why the next round waits; empty if it does not wait
    next_round: RoundPlan
    ending: str  # when the incumbent ends, and possible replacements; empty if no end is known
    rounds: Sequence[CandidateRound]  # the newest first


def load_leaderboard(ctx: ProposalsContext, name: str) -> Leaderboard:
    """Loads the leaderboard of a route. Raises NotFound."""
    with ctx.store.read() as tx:
        route = routes.require_route(tx, name)
        targets_by_id = Targets(tx).all()
        names = {id_: target.name for id_, target in targets_by_id.items()}
        measured = _list_measured(ctx, tx, route)
        rows = [
            _build_row(tx, proposal, names[proposal.candidate], route.incumbent)
            for proposal in _choose_newest(measured, route)
        ]
        if measured:
            rows.append(
                _build_incumbent_row(tx, measured, route.incumbent, names[route.incumbent])
            )
        rounds = CandidateRounds(tx).newest(name, ROUNDS_SHOWN)
        obstacle = candidate_rounds.find_obstacle(tx, route)
    schedule = route.settings.candidates
    shown_targets = [
        targets_by_id[id_] for id_ in {route.incumbent, *(row.target for row in rows)}
    ]
    endings = {
        deprecation.target: deprecation.text
        for deprecation in deprecations.list_endings(ctx, shown_targets)
    }
    rows = [replace(row, ending=endings.get(row.target, "")) for row in rows]
    ranked = mark_frontier(sorted(rows, key=_score_order))
    ending = endings.get(route.incumbent)
    return Leaderboard(
        route=name,
        incumbent=names[route.incumbent],
        rows=ranked,
        ending=f"{ending}. {_describe_best(name, ranked)}".strip() if ending else "",
        schedule=schedule.text if schedule else "",
        next_round_at=candidate_rounds.find_next_round(ctx, route),
        obstacle=obstacle if schedule else "",
        next_round=candidates.plan_round(ctx, route, schedule) if schedule else RoundPlan(),
        rounds=[round_ for round_ in rounds if round_.because != REGISTERED],
    )


def _score_order(row: LeaderboardRow) -> tuple[float, str]:
    """Sorts by score, highest first; rows without a score come last."""
    return -1.0 if row.score is None else -row.score, row.name


def mark_frontier(rows: Sequence[LeaderboardRow]) -> Sequence[LeaderboardRow]:
    """Marks rows that no other row beats in both score and price (the Pareto frontier).

    A row beats another if it is at least as good in both, and better in one. Rows without a
    score or a price are not marked.
    """

    def is_beaten(row: LeaderboardRow) -> bool:
        return any(
            other.score is not None
            and other.usd_per_1000 is not None
            and other.score >= (row.score or 0.0)
            and other.usd_per_1000 <= (row.usd_per_1000 or 0.0)
            and (other.score, other.usd_per_1000) != (row.score, row.usd_per_1000)
            for other in rows
        )

    return [
        replace(
            row,
            is_cheapest_so_good=row.score is not None
            and row.usd_per_1000 is not None
            and not is_beaten(row),
        )
        for row in rows
    ]


def _list_measured(
    ctx: ProposalsContext,
    tx: Transaction,
    route: Route,
) -> Sequence[Proposal]:
    """Lists proposals of any route on the current primary suites, newest first."""
    primary_digests = {
        suite.suite: ctx.suites.pin(suite.suite).digest
        for suite in route.settings.suites
        if suite.role is SuiteRole.PRIMARY
    }
    return [
        hide_evidence(tx, proposal)[0]
        for proposal in Proposals(tx).list()
        if primary_digests.items()
        <= {plan.suite: plan.suite_digest for plan in proposal.plans}.items()
        and any(plan.suite in proposal.runs for plan in proposal.plans)
    ]


def _choose_newest(measured: Sequence[Proposal], route: Route) -> Sequence[Proposal]:
    """Chooses one proposal for each candidate: first with the present incumbent, then with a
    verdict, then the newest.
    """

    def preference(proposal: Proposal) -> tuple[bool, bool]:
        return (
            proposal.incumbent == route.incumbent,
            proposal.verdict is not None,
        )

    newest_by_candidate: dict[str, Proposal] = {}
    for proposal in measured:
        chosen = newest_by_candidate.get(proposal.candidate)
        if chosen is None or preference(proposal) > preference(chosen):
            newest_by_candidate[proposal.candidate] = proposal
    return [
        newest_by_candidate[candidate]
        for candidate in newest_by_candidate
        if candidate != route.incumbent
    ]


def _build_row(
    tx: Transaction,
    proposal: Proposal,
    name: str,
    incumbent: str,
) -> LeaderboardRow:
    """Builds a candidate's row. Omits the difference if the proposal compared with another
    incumbent.

    Args:
        incumbent: id of the route's present incumbent.

    An interval is shown only for one suite, or for the gate's weighted mean.
    """
    verdict = Verdicts(tx).get(proposal.verdict) if proposal.verdict else None
    row = LeaderboardRow(
        name=name,
        target=proposal.candidate,
        standing=_classify(tx, proposal, verdict)
        if proposal.incumbent == incumbent
        else Standing.EARLIER,
        proposal=proposal.id,
        measured_at=verdict.decided_at if verdict else None,
        look=max((plan.look for plan in proposal.plans), default=1),
    )
    row = _add_answers(row, _load_answers(tx, proposal, "candidate"))
    if verdict is None or row.standing is Standing.EARLIER:
        return row
    primary_reports = [
        report
        for report in verdict.suites
        if report.role is SuiteRole.PRIMARY and not report.is_unscored
    ]
    if not primary_reports:
        return row
    weights = {plan.suite: plan.weight for plan in proposal.plans}
    whole_report = next(
        (report for report in primary_reports if report.suite not in weights),
        primary_reports[0],
    )
    low, high = (
        (whole_report.ci_low, whole_report.ci_high)
        if _covers_whole_difference(whole_report, primary_reports)
        else (None, None)
    )
    delta = primary_difference(verdict, weights)
    return replace(
        row,
        delta=delta,
        delta_low=low,
        delta_high=high,
    )


def _covers_whole_difference(report: SuiteReport, primary: Sequence[SuiteReport]) -> bool:
    """Tells whether a report's interval belongs to the whole difference."""
    return len(primary) == 1 or report is not primary[0]


def _build_incumbent_row(
    tx: Transaction,
    measured: Sequence[Proposal],
    incumbent: str,
    name: str,
) -> LeaderboardRow:
    """Builds the incumbent's row from its run with the most answers, in either arm."""
    answers_by_proposal = [
        _load_answers(tx, proposal, arm)
        for proposal in measured[:MOST_COMPARED]
        for arm in ("incumbent", "candidate")
        if getattr(proposal, arm) == incumbent
    ]
    answers = max(answers_by_proposal, key=lambda columns: sum(map(len, columns)), default=())
    return _add_answers(LeaderboardRow(name, incumbent, Standing.INCUMBENT), answers)


def _load_answers(
    tx: Transaction,
    proposal: Proposal,
    arm: str,
) -> Sequence[AnswerColumns]:
    """Loads answers by primary suite; checks their signatures unless there are too many."""
    runs = [
        (getattr(proposal.runs[plan.suite], arm), plan.planned_items)
        for plan in proposal.plans
        if plan.role is SuiteRole.PRIMARY and plan.suite in proposal.runs
    ]
    if is_large(proposal):
        return [EvalRuns(tx).figures(run, below=below) for run, below in runs]
    return [
        AnswerColumns.from_samples(EvalRuns(tx).outcomes(run_id, below=below))
        for run_id, below in runs
    ]


def _add_answers(row: LeaderboardRow, answers: Sequence[AnswerColumns]) -> LeaderboardRow:
    """Adds score, cost and latency.

    Args:
        answers: of one model, by primary suite.

    A score is the mean over items of the mean over epochs; its interval is clipped to 0 to 1.
    """
    scores: dict[tuple[int, str], list[float]] = {}
    for suite, columns in enumerate(answers):
        for item, score in zip(columns.item, columns.strict, strict=True):
            if score is not None:
                scores.setdefault((suite, item), []).append(score)
    means = [fmean(epochs) for epochs in scores.values()]
    figures = compute_arm_figures(AnswerColumns.join(answers))
    interval = mean_interval(means)
    return replace(
        row,
        score=fmean(means) if means else None,
        score_low=max(0.0, interval[0]) if interval else None,
        score_high=min(1.0, interval[1]) if interval else None,
        items=len(means),
        usd_per_1000=figures.cost_usd_per_1000,
        p50_s=figures.p50_s,
    )


_STANDINGS: Final[Mapping[type[Verdict], Standing]] = {
    Passed: Standing.BETTER,
    Failed: Standing.WORSE,
    Inconclusive: Standing.OPEN,
}


def _classify(tx: Transaction, proposal: Proposal, verdict: Verdict | None) -> Standing:
    """Classifies a model by its proposal's verdict.

    Only the claim `superior` shows that a model is better; other claims show that it is not
    worse.
    """
    if find_blind_suites(tx, proposal):
        return Standing.HIDDEN
    if verdict is None:
        return Standing.MEASURED_NOW if proposal.open else Standing.NOT_MEASURED
    if isinstance(verdict, Passed) and proposal.claim is not Claim.SUPERIOR:
        return Standing.NOT_WORSE
    if isinstance(verdict, Inconclusive) and any(
        suite.how == FUTILE for suite in verdict.suites
    ):
        return Standing.HOPELESS
    return _STANDINGS.get(type(verdict), Standing.NOT_MEASURED)


def describe_shortlist(ctx: ProposalsContext, target: str) -> str:
    """Lists the measured models that could replace a target (an id), for each of its routes.

    Empty for a target that is no route's incumbent, or without measured models.
    """
    with ctx.store.read() as tx:
        table = Routing(tx).table().routes
    serving = sorted(name for name, route in table.items() if route.incumbent == target)
    boards = [load_leaderboard(ctx, name) for name in serving]
    return " ".join(filter(None, (_describe_best(board.route, board.rows) for board in boards)))


def _describe_best(route: str, rows: Sequence[LeaderboardRow]) -> str:
    """Writes `Measured for chat: openai/gpt-5.1 (+3.1 points, $0.80 for 1,000 answers).`"""
    good_standings = (Standing.BETTER, Standing.NOT_WORSE, Standing.OPEN)
    best_rows = [row for row in rows if row.standing in good_standings and not row.ending]
    descriptions = [
        f"{row.name} ({format_points(row.delta)} points, {_describe_price(row)})"
        for row in best_rows[:SHORTLIST_LENGTH]
        if row.delta is not None
    ]
    return f"Measured for {route}: {'; '.join(descriptions)}." if descriptions else ""


def _describe_price(row: LeaderboardRow) -> str:
    if row.usd_per_1000 is None:
        return "its cost was not recorded"
    return f"{format_usd(row.usd_per_1000)} for 1,000 answers"
