"""Decides on a shadow by a judge's scores of callers' first pairs (statistics.md §2.9).

The terms are fixed at the start. Shadows of a route with the same terms are one series: their
callers count together, and the series is one look of (route, model). A verdict ends the shadow,
and opens no canary: a proposal asks again, with fresh items.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.errors import InputError, SignatureInvalid
from harness.frame.formatting import (
    format_number,
    format_percent,
    format_quantity,
    format_score,
    format_usd,
)
from harness.frame.records.transaction import Transaction
from harness.gate.budget import spend_alpha
from harness.gate.offline.label_plan import LabelDesign
from harness.gate.offline.shadow_evidence import ShareEvidence, judge_shares
from harness.gate.suite_plan import TRAFFIC_SCORER, Claim, SuitePin
from harness.proposals.context import ProposalsContext
from harness.proposals.registration import look_counts
from harness.providers.models.makers import find_shared_maker
from harness.providers.records import Targets
from harness.providers.target import Target
from harness.routing.control import data_class_checks
from harness.routing.records.interventions import Shadows
from harness.routing.records.shadow_scores import ShadowScores
from harness.routing.route_settings import RouteSettings
from harness.routing.shadow import Shadow, ShadowTerms
from harness.routing.shadow_score import ScoreReason, ShadowScore
from harness.routing.table import Route

# Stands for every suite of traffic of a route, to count the looks at its traffic.
ANY_TRAFFIC: Final = SuitePin("", "", "", f"{TRAFFIC_SCORER}@", "", 0)
NAMED_BY: Final = 6  # characters of a shadow's id in the name of the suite that it proposes
RUNNING: Final = "running"
HIDDEN: Final = "hidden"
ENDED_BY_VERDICT: Final = "its judge reached a verdict"
NO_JUDGE: Final = "none: without a judge, a shadow gives no verdict, only the six checks"


@dataclass(frozen=True, slots=True)
class ShadowJudge:
    """A person's choice of a shadow's judge.

    name: id or `provider/model`. anyway: why it may be of a compared model's maker.
    """

    name: str
    criteria: str
    anyway: str = ""


@dataclass(frozen=True, slots=True)
class ShadowVerdict:
    """What the judge of a shadow shows so far.

    outcome: passed | failed | running, or hidden while people label. callers: with a score.
    unknown: those among them whose score is unknown. earlier: those of earlier shadows of the
    series. evidence: None before the verdict, so that people who decide meanwhile cannot see
    it. next_step: empty before the verdict. deleted: those among `unknown` whose pair was
    deleted before the judge had compared it.
    """

    outcome: str
    callers: int
    unknown: int
    earlier: int
    evidence: ShareEvidence | None
    words: str
    next_step: str
    deleted: int = 0


def fix_terms(
    ctx: ProposalsContext,
    tx: Transaction,
    route: Route,
    candidate: Target,
    judge: Target,
    choice: ShadowJudge,
    shadow_id: str,
) -> ShadowTerms:
    """Fixes the terms of a new shadow: the claim and margin of the route's policy, and the
    alpha of its look.

    Args:
        judge: the target of `choice`.

    Raises InputError for a judge that may not compare these models, and for a route without
    captures; NotAllowed for the judge's data class; NotFound.
    """
    settings = route.settings
    if not choice.criteria.strip():
        raise InputError("a shadow's judge needs a rubric: give --rubric FILE, or leave it out")
    if not settings.capture_bps:
        raise InputError(
            f"route {route.name!r} allows no captures, so a shadow stores no pair for a judge: "
            f"`swapproof route settings {route.name} --capture 1% --reason WHY` allows them; "
            "without --judge, a shadow has the six mechanical checks alone"
        )
    _check_judge(tx, judge, route, candidate, choice.anyway)
    data_class_checks.check_targets(ctx, settings, [judge], route=route.name)
    gate = ctx.policy(settings.policy).gate
    design = LabelDesign(gate.claim.quality, gate.margin)
    fixed = (judge.name, choice.criteria, choice.anyway.strip(), design.claim, design.margin)
    if running := _find_running_series(tx, route, candidate, fixed):
        return running
    lineage = look_counts.find_lineage(tx, candidate, None)
    looks, _ = look_counts.count_looks(tx, ANY_TRAFFIC, candidate.id, lineage, route.name)
    look = looks + 1
    return ShadowTerms(*fixed, alpha=spend_alpha(gate.alpha, look), look=look, series=shadow_id)


def _check_judge(
    tx: Transaction, judge: Target, route: Route, candidate: Target, anyway: str
) -> None:
    """Checks a judge as a suite's: it is no compared model, nor of their makers without a
    reason.
    """
    incumbent = Targets(tx).all()[route.incumbent]
    if judge.name in (incumbent.name, candidate.name):
        raise InputError(f"{judge.name} cannot judge its own answers: choose another --judge")
    fault = find_shared_maker(judge.model, [incumbent.model, candidate.model])
    if fault and not anyway.strip():
        raise InputError(
            f"{fault}: choose a --judge of another maker, or give a reason by --judge-anyway, "
            "which the verdict shows"
        )


def _find_running_series(
    tx: Transaction, route: Route, candidate: Target, fixed: Sequence[object]
) -> ShadowTerms | None:
    """Returns the terms of the newest series with the same models and terms, unless it has its
    verdict.
    """
    for earlier in Shadows(tx).judged(route.name):
        terms = earlier.terms
        if terms is None or (earlier.incumbent, earlier.candidate.id) != (
            route.incumbent,
            candidate.id,
        ):
            continue
        own = (terms.judge, terms.criteria, terms.judge_anyway, terms.claim, terms.margin)
        if own == tuple(fixed):
            evidence = weigh_scores(terms, ShadowScores(tx).of_series(terms.series))
            return terms if evidence.outcome == RUNNING else None
    return None


def design_of(terms: ShadowTerms) -> LabelDesign:
    return LabelDesign(terms.claim, terms.margin, terms.alpha)


def weigh_scores(terms: ShadowTerms, scores: Sequence[ShadowScore]) -> ShareEvidence:
    """Weighs a series' scores, in their order."""
    return judge_shares([(score.low, score.high) for score in scores], design_of(terms))


def load_verdict(tx: Transaction, shadow: Shadow) -> ShadowVerdict | None:
    """Returns the state of a shadow's verdict: none by forged scores. None without a judge."""
    if shadow.terms is None:
        return None
    try:
        scores = ShadowScores(tx).of_series(shadow.terms.series)
    except SignatureInvalid as error:
        return ShadowVerdict(RUNNING, 0, 0, 0, None, f"none: {error}", "`swapproof db check`")
    evidence = weigh_scores(shadow.terms, scores)
    is_decided = evidence.outcome != RUNNING
    return ShadowVerdict(
        evidence.outcome,
        callers=len(scores),
        unknown=sum(not score.is_known for score in scores),
        earlier=sum(score.shadow != shadow.id for score in scores),
        evidence=evidence if is_decided else None,
        words=describe_verdict(shadow, shadow.terms, evidence) if is_decided else "",
        next_step=name_next_step(shadow, shadow.terms, evidence) if is_decided else "",
        deleted=sum(score.reason is ScoreReason.DELETED for score in scores),
    )


def hide_verdict(verdict: ShadowVerdict, why: str) -> ShadowVerdict:
    """Returns a verdict as people may see it while they label: without outcome and evidence."""
    return replace(verdict, outcome=HIDDEN, evidence=None, words=why, next_step="")


def describe_verdict(shadow: Shadow, terms: ShadowTerms, evidence: ShareEvidence) -> str:
    """Describes a verdict in a sentence, by the judge's name."""
    low = format_percent(evidence.low)
    high = format_percent(evidence.high)
    share = low if low == high else f"{low} to {high}"
    goal = format_percent(design_of(terms).theta0)
    side = "above" if evidence.outcome == "passed" else "below"
    anyway = f" (in spite of its maker: {terms.judge_anyway})" if terms.judge_anyway else ""
    return (
        f"{evidence.outcome.upper()}: by {terms.judge}{anyway}, {shadow.candidate.name} wins "
        f"{share} of {format_quantity(evidence.units, 'caller')}, shown to be {side} {goal}"
    )


def name_next_step(shadow: Shadow, terms: ShadowTerms, evidence: ShareEvidence) -> str:
    """Names the next commands. The shadow has stopped at these callers because of their scores,
    so they prove nothing more: a proposal asks again, with other requests.
    """
    route = shlex.quote(shadow.route)
    candidate = shlex.quote(shadow.candidate.name)
    if evidence.outcome == "failed":
        return f"`swapproof route candidates {route}` shows other candidates"
    if shadow.proposal:
        return f"`swapproof proposal show {shadow.proposal}`: its suites decide"
    # A name of its own, because an earlier draw of this route may have the plain name.
    suite = shlex.quote(f"{shadow.route}-traffic-{shadow.id[-NAMED_BY:]}")
    judge = f"--judge {shlex.quote(terms.judge)}"
    if terms.judge_anyway:
        judge += f" --judge-anyway {shlex.quote(terms.judge_anyway)}"
    return (
        f"after a whole day (UTC) with captures, `swapproof suite draw {suite} --route {route} "
        f"--from captures {judge}`, "
        f"`swapproof route settings {route} --suite {suite} --reason WHY`, and "
        f"`swapproof proposal create {route} {candidate} --reason WHY`"
    )


def list_verdict_figures(
    shadow: Shadow, verdict: ShadowVerdict | None, judge_usd: float
) -> list[tuple[str, str]]:
    """Lists judge, claim, counts and verdict for people, but no evidence before the verdict."""
    terms = shadow.terms
    if terms is None or verdict is None:
        return [("verdict", NO_JUDGE)]
    claim = (
        "wins more than half"
        if terms.claim is Claim.SUPERIOR
        else f"at most {format_score(terms.margin, None)} points worse"
    )
    unknown = f", {verdict.unknown:,} without a score" if verdict.unknown else ""
    if verdict.deleted:
        unknown += f" ({verdict.deleted:,} deleted before the judge read them)"
    earlier = f", {verdict.earlier:,} of earlier shadows" if verdict.earlier else ""
    rows = [
        ("judge", f"{terms.judge}, {format_usd(judge_usd)}"),
        ("claim", f"{claim}; look {terms.look}, alpha {format_number(terms.alpha, 2)}"),
        ("judged", f"{format_quantity(verdict.callers, 'caller')}{unknown}{earlier}"),
        ("verdict", verdict.words or "none yet; the evidence is shown with it"),
    ]
    return rows + ([("next", verdict.next_step)] if verdict.next_step else [])


def find_judge_refusal(ctx: ProposalsContext, settings: RouteSettings, shadow: Shadow) -> str:
    """Returns why the judge may not see the route's data; empty if it may, or without one."""
    if shadow.terms is None:
        return ""
    judge = Target.from_name(shadow.terms.judge)
    return data_class_checks.find_refusal(ctx, settings, judge, route=shadow.route)


def announce_verdict(tx: Transaction, shadow: Shadow) -> None:
    """Tells people that there is a verdict, but not which one: they may label pairs of this
    candidate now or later, and a message that has left Swapproof cannot be hidden.
    """
    alerts.raise_alert(
        tx,
        AlertKind.SHADOW_VERDICT,
        shadow.id,
        subject=f"route {shadow.route}",
        title=f"the shadow of {shadow.candidate.name} has a verdict",
        text=(
            f"The judge's verdict has ended the shadow. Next: `swapproof shadow status "
            f"{shadow.route}` shows the verdict, and names the next commands."
        ),
    )
