"""Starts, ends and reports shadows. A shadow mirrors a route's requests to a candidate; callers
never get its answers. A shadow needs an open proposal of that candidate or an approver,
clearance for the data class, and an end. It needs no verdict.

A shadow never changes a route. Harm by the six checks only informs people, and does not end it.
With a judge, a shadow ends at its verdict (`shadow_verdict`). The routers mirror and count
(`router.observers`); the limits and tallies are in `harness.routing.shadow`.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import reduce
from typing import Final

from harness.canary.shadow_verdict import (
    ENDED_BY_VERDICT,
    ShadowJudge,
    ShadowVerdict,
    announce_verdict,
    find_judge_refusal,
    fix_terms,
    hide_verdict,
    list_verdict_figures,
    load_verdict,
)
from harness.frame.errors import InputError, NotFound
from harness.frame.formatting import (
    format_answer_price,
    format_milliseconds,
    format_percent,
    format_usd,
)
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.gate.arrays import log_mean
from harness.proposals.context import ProposalsContext
from harness.proposals.labels.blindness import find_why_shadow_hidden
from harness.providers.registry import named_models, targets
from harness.providers.target import Target
from harness.providers.target_price import describe_missing
from harness.routing.control import data_class_checks, routes
from harness.routing.records.interventions import Shadows
from harness.routing.records.proposals import Proposals
from harness.routing.records.routes import Routing
from harness.routing.shadow import (
    COST_USD,
    JUDGE_USD,
    MIRRORED,
    PAIRS,
    UNIT,
    CheckSides,
    Shadow,
    ShadowCheck,
    ShadowLimits,
    ShadowTally,
    ShadowUsage,
    add_tallies,
    check_shadow_limits,
    sum_usage,
)
from harness.routing.table import Route, find_shadow_end

# Probability of a false alarm, over all checks and the whole life of a shadow.
SHADOW_ALPHA: Final = 0.05

LOSS_PROBABILITIES: Final = (0.55, 0.6, 0.7, 0.8, 0.9, 0.97)


def check_log_e(lost: int, won: int) -> float:
    """Returns the log e-value of one check.

    Args:
        lost: pairs in which only the incumbent passed.
        won: pairs in which only the candidate passed.

    The null hypothesis: a discordant pair is lost with probability 1/2 or less. The e-value is
    the mean of likelihood ratios over LOSS_PROBABILITIES, so it is valid at any time.
    """
    return log_mean(
        [
            lost * math.log(2 * theta) + won * math.log(2 * (1 - theta))
            for theta in LOSS_PROBABILITIES
        ]
    )


def combined_log_e(discordant: Mapping[str, tuple[int, int]]) -> float:
    """Returns the log of the mean of the checks' e-values. A product would need independent
    checks, but all checks use the same pairs.

    Args:
        discordant: (lost, won) by check.

    A check without pairs counts with an e-value of 1.
    """
    seen = [check_log_e(*counts) for counts in discordant.values()]
    return log_mean([*seen, *[0.0] * (len(ShadowCheck) - len(seen))])


def is_harm(log_e_all: float) -> bool:
    """Tells whether the e-value reaches 1/SHADOW_ALPHA (Ville's inequality)."""
    return log_e_all >= -math.log(SHADOW_ALPHA)


def share_of_level(log_e_value: float) -> float:
    """Returns the evidence as a share of the level of harm, from 0; may exceed 1."""
    return max(0.0, log_e_value / -math.log(SHADOW_ALPHA))


LONGEST_SHADOW: Final = timedelta(days=90)

DEFAULT_DURATION: Final = timedelta(days=7)

# Why a selected request was not mirrored, by the key of the reason's count.
LEFT_OUT: Final[Mapping[str, str]] = {
    "declined": "the client declined (x-swapproof-shadow: off), or its key is opted out",
    "too_large": "longer than `copy_max_bytes` of the route",
    "not_repeatable": "uses state or tools at the provider, so a copy could act twice",
    "unable": "the candidate lacks a required capability",
    "over_budget": "over the day's budget",
    "over_monthly_cap": "the monthly cap left no money: `swapproof spending`",
    "budget_unknown": "the database did not answer, so spending was unknown",
    "resting": "the provider was overloaded",
    "circuit_open": "the candidate's circuit was open",
    "users_first": "callers needed the rate limit of the candidate's account",
    "dropped": "too many at once",
    "unreadable": "an answer could not be read",
}
# Why a mirrored request became no stored pair, by the key of the reason's count.
NOT_STORED: Final[Mapping[str, str]] = {
    "unstored_route": "the route keeps no captures",
    "unstored_client": "the client forbids captures (x-swapproof-capture: off, `store: "
    "false`), or its key is opted out",
}


@dataclass(frozen=True, slots=True)
class CheckEvidence:
    """Counts of one check over all pairs, and its evidence.

    `both`, `incumbent_only`, `candidate_only` and `neither` count pairs by the side that
    passed.
    """

    check: str
    both: int
    incumbent_only: int
    candidate_only: int
    neither: int
    # lost, won: the evidence. They count the first pairs of callers in which only the incumbent
    # passed (lost), or only the candidate (won).
    lost: int
    won: int
    share_of_level: float  # evidence as a share of the level of harm


@dataclass(frozen=True, slots=True)
class PairFigures:
    """Means of one side over all pairs of answers."""

    ms: float  # for a stream, to its first output
    output_tokens: float
    cost_usd: float


@dataclass(frozen=True, slots=True)
class ShadowStatus:
    """A shadow's figures for people.

    `unpriced` counts mirrored requests of unknown price, which `cost_usd` leaves out.
    `judge_usd` is the judge's cost, which `cost_usd` leaves out, too. `left_out` counts
    requests by the keys of LEFT_OUT, without zeros; `not_stored` counts those of NOT_STORED.
    `incumbent` and `candidate` are None before the first pair. `hidden` says why checks, means
    and verdict are not shown while people label; empty if they are shown.
    """

    shadow: Shadow
    state: str
    mirrored: int
    pairs: int
    cost_usd: float
    unpriced: int
    today: ShadowUsage  # usage of the budget
    left_out: Mapping[str, int]
    checks: Sequence[CheckEvidence]
    share_of_level: float | None  # None if it is hidden
    # Whether the evidence shows that the candidate is worse; None if it is hidden. This does
    # not end the shadow.
    harm: bool | None
    incumbent: PairFigures | None
    candidate: PairFigures | None
    judge_usd: float = 0.0
    verdict: ShadowVerdict | None = None  # None without a judge
    not_stored: Mapping[str, int] = field(default_factory=dict)
    hidden: str = ""


def start_shadow(  # noqa: PLR0913 - by name, and most have a default
    ctx: ProposalsContext,
    actor: Actor,
    route_name: str,
    candidate_name: str,
    limits: ShadowLimits,
    *,
    reason: str,
    lasts: timedelta = DEFAULT_DURATION,
    judge: ShadowJudge | None = None,
) -> Shadow:
    """Starts a shadow; every router mirrors requests within two seconds.

    Needs a proposer if the candidate has an open proposal, otherwise an approver. Raises
    NotFound, NotAllowed (also for the data class), InputError, and Conflict if the route
    already has a shadow.

    Args:
        candidate_name: id or `provider/model`.
        judge: None for a shadow without a verdict.
    """
    actor.require(Role.PROPOSER)
    check_shadow_limits(limits)
    if not reason.strip():
        raise InputError("a shadow needs a reason: its candidate reads callers' requests")
    if not timedelta(0) < lasts <= LONGEST_SHADOW:
        raise InputError(f"a shadow must last more than 0 and up to {LONGEST_SHADOW.days} days")
    with ctx.store.write() as tx:
        route = routes.require_route(tx, route_name)
        now = ctx.clock.now()
        candidate = named_models.register_model(ctx, tx, actor, candidate_name)
        check_shadow(ctx, tx, route, candidate, limits)
        id_ = ctx.chance.token("sh_")
        terms = None
        if judge is not None:
            judge_target = named_models.register_model(ctx, tx, actor, judge.name)
            _require_price(tx, judge_target, limits)
            terms = fix_terms(ctx, tx, route, candidate, judge_target, judge, id_)
        open_ = Proposals(tx).list(route=route.name, open_only=True)
        proposal = next((one.id for one in open_ if one.candidate == candidate.id), None)
        if proposal is None:
            actor.require(Role.APPROVER)
        shadow = Shadow(
            id=id_,
            route=route.name,
            incumbent=route.incumbent,
            candidate=candidate,
            data_class=route.settings.data_class,
            limits=limits,
            proposal=proposal,
            reason=reason,
            started_by=actor.name,
            started_at=now,
            expires_at=now + lasts,
            terms=terms,
        )
        Shadows(tx).add(shadow)
        _record_shadow(tx, shadow, actor, "shadow.start", reason)
        return shadow


def check_shadow(
    ctx: ProposalsContext,
    tx: Transaction,
    route: Route,
    candidate: Target,
    limits: ShadowLimits,
) -> None:
    """Checks that a shadow of this candidate may run on the route.

    Raises InputError for a route with side effects, for a model that the route already tries or
    serves, and for a budget in US dollars without a price. Raises NotAllowed for the data
    class.
    """
    if route.settings.side_effects:
        raise InputError(
            f"route {route.name!r} has tools that act on the world (side_effects), so its "
            "requests cannot be sent twice"
        )
    if candidate.id == route.incumbent:
        raise InputError(f"{candidate.name} is the incumbent of route {route.name!r} already")
    if route.canary is not None and route.canary.target == candidate.id:
        raise InputError(
            f"{candidate.name} has its canary on route {route.name!r}: `swapproof canary "
            f"status {route.name}` shows more than a shadow could"
        )
    data_class_checks.check_targets(ctx, route.settings, [candidate], route=route.name)
    targets.provider_of(tx, candidate)  # raises for a removed provider
    _require_price(tx, candidate, limits)


def _require_price(tx: Transaction, target: Target, limits: ShadowLimits) -> None:
    """Raises InputError if a budget in US dollars meets a target without a price."""
    if limits.usd_per_day is not None and targets.find_price(tx, target) is None:
        missing = describe_missing(
            target.name, effect=", so a budget in US dollars cannot work"
        )
        raise InputError(f"{missing}; or give no budget in money (--usd-per-day none)")


def stop_shadow(
    ctx: ProposalsContext,
    actor: Actor,
    route: str,
    *,
    reason: str = "",
) -> Shadow:
    actor.require(Role.PROPOSER)
    with ctx.store.write() as tx:
        live = next(
            (shadow for shadow in Shadows(tx).live() if shadow.route == route),
            None,
        )
        if live is None:
            routes.require_route(tx, route)
            raise NotFound(
                f"route {route!r} has no shadow now; `swapproof shadow status` shows all"
            )
        return end_shadow(tx, live, actor, reason or "stopped by hand")


def end_finished(ctx: ProposalsContext) -> Sequence[str]:
    """Ends every shadow whose time, proposal, route or clearance is over. Returns log lines."""
    with ctx.store.read() as tx:
        finished = [
            (shadow, why)
            for shadow in Shadows(tx).live()
            if (why := find_end_reason(ctx, tx, shadow))
        ]
    if not finished:
        return ()
    with ctx.store.write() as tx:
        for shadow, why in finished:
            end_shadow(tx, shadow, SYSTEM, why)
    return [
        f"shadow {shadow.id} of route {shadow.route} ended: {why}" for shadow, why in finished
    ]


def find_end_reason(ctx: ProposalsContext, tx: Transaction, shadow: Shadow) -> str:
    """Explains why a shadow must end now; empty if it may continue."""
    route = Routing(tx).route(shadow.route)
    why = find_shadow_end(shadow, route)
    if why or route is None:
        return why
    if ctx.clock.now() >= shadow.expires_at:
        return "its time is up"
    if shadow.proposal is not None and not Proposals(tx).get(shadow.proposal).open:
        return f"its proposal {shadow.proposal} is over"
    return data_class_checks.find_refusal(
        ctx, route.settings, shadow.candidate, route=route.name
    ) or find_judge_refusal(ctx, route.settings, shadow)


def end_decided(tx: Transaction, shadow: Shadow) -> str:
    """Ends a live shadow that has its verdict, and tells people. Returns a log line; empty
    before the verdict.
    """
    verdict = load_verdict(tx, shadow)
    if verdict is None or verdict.evidence is None:
        return ""
    # Neither the reason nor the log says which verdict, because people may label meanwhile.
    end_shadow(tx, shadow, SYSTEM, ENDED_BY_VERDICT)
    announce_verdict(tx, shadow)
    return f"shadow {shadow.id} of route {shadow.route} ended: {ENDED_BY_VERDICT}"


def end_shadow(
    tx: Transaction,
    shadow: Shadow,
    actor: Actor,
    because: str,
) -> Shadow:
    """Ends a shadow and records it.

    Args:
        actor: SYSTEM for an end by time or by a change.
    """
    ended = Shadows(tx).end(
        shadow.id,
        actor=actor.name,
        because=because,
        now=tx.now(),
    )
    _record_shadow(tx, ended, actor, "shadow.stop", because)
    return ended


def _record_shadow(
    tx: Transaction,
    shadow: Shadow,
    actor: Actor,
    action: str,
    reason: str,
) -> None:
    details = {
        "route": shadow.route,
        "candidate": shadow.candidate.name,
        "proposal": shadow.proposal,
        "share_bps": shadow.limits.share_bps,
        "requests_per_day": shadow.limits.requests_per_day,
        "usd_per_day": shadow.limits.usd_per_day,
        "reason": reason,
    }
    if (terms := shadow.terms) is not None:
        details |= {
            "judge": terms.judge,
            "claim": terms.claim.value,
            "margin": terms.margin,
            "alpha": terms.alpha,
            "look": terms.look,
            "series": terms.series,
        }
    AuditLog(tx).append(actor, action, f"shadow {shadow.id}", details)


def load_status(ctx: ProposalsContext, route: str) -> ShadowStatus:
    with ctx.store.read() as tx:
        newest = Shadows(tx).list(route=route, limit=1)
        if not newest:
            routes.require_route(tx, route)
            raise NotFound(
                f"route {route!r} has had no shadow yet: `swapproof shadow start {route} "
                "PROVIDER/MODEL --reason …`"
            )
        return load_shadow_status(ctx, tx, newest[0])


def list_running(ctx: ProposalsContext) -> Sequence[ShadowStatus]:
    """Lists the status of live shadows by route; leaves out shadows whose time is up."""
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        live = sorted(Shadows(tx).live(), key=lambda shadow: shadow.route)
        return [
            load_shadow_status(ctx, tx, shadow) for shadow in live if shadow.expires_at > now
        ]


def load_shadow_status(
    ctx: ProposalsContext,
    tx: Transaction,
    shadow: Shadow,
) -> ShadowStatus:
    """Loads a shadow's status as people may see it now."""
    rows = Shadows(tx).tallies([shadow.id])
    status = build_status(shadow, rows, ctx.clock.now(), load_verdict(tx, shadow))
    why = find_why_shadow_hidden(tx, shadow.route, shadow.candidate.id)
    return hide_figures(status, why) if why else status


def hide_figures(status: ShadowStatus, why: str) -> ShadowStatus:
    """Returns a status without the figures that describe answers: each of them could tell a
    labeller which model gave an answer, or which one the judge prefers. Counts of requests and
    costs stay.
    """
    verdict = status.verdict
    return replace(
        status,
        checks=(),
        share_of_level=None,
        harm=None,
        incumbent=None,
        candidate=None,
        verdict=verdict and hide_verdict(verdict, why),
        hidden=why,
    )


def build_status(
    shadow: Shadow,
    rows: Sequence[ShadowTally],
    now: datetime,
    verdict: ShadowVerdict | None = None,
) -> ShadowStatus:
    """Builds a shadow's status.

    Args:
        rows: the shadow's tallies, or those of several shadows that count as one.
    """
    total = reduce(add_tallies, rows, ShadowTally(shadow.id, now.date(), ""))
    counts = Counter(total.counts)
    sums = total.sums
    checks = [
        evidence
        for check in ShadowCheck
        if (evidence := _build_check_evidence(check, counts)) is not None
    ]
    log_e = combined_log_e({check.check: (check.lost, check.won) for check in checks})
    pairs = counts[PAIRS]
    return ShadowStatus(
        shadow=shadow,
        state=_describe_state(shadow, now),
        mirrored=counts[MIRRORED],
        pairs=pairs,
        cost_usd=sums.get(COST_USD, 0.0),
        unpriced=counts["unpriced"],
        today=sum_usage(rows, now.date()),
        left_out={name: counts[name] for name in LEFT_OUT if counts[name]},
        checks=checks,
        share_of_level=share_of_level(log_e),
        harm=is_harm(log_e),
        incumbent=_compute_means("incumbent", sums, pairs),
        candidate=_compute_means("candidate", sums, pairs),
        judge_usd=sums.get(JUDGE_USD, 0.0),
        verdict=verdict,
        not_stored={name: counts[name] for name in NOT_STORED if counts[name]},
    )


def _describe_state(shadow: Shadow, now: datetime) -> str:
    """Returns the state in words.

    A shadow can be expired before the control plane has ended it.
    """
    if shadow.ended_at is not None:
        return f"ended by {shadow.ended_by}: {shadow.ended_because}"
    return "expired" if now >= shadow.expires_at else "mirroring"


def _build_check_evidence(
    check: ShadowCheck, counts: Mapping[str, int]
) -> CheckEvidence | None:
    """Returns None for a check without requests."""
    by_sides = {
        sides.value: counts.get(f"{check.value}.{sides.value}", 0) for sides in CheckSides
    }
    if not any(by_sides.values()):
        return None
    lost, won = (
        counts.get(f"{UNIT}.{check.value}.{side.value}", 0)
        for side in (CheckSides.INCUMBENT, CheckSides.CANDIDATE)
    )
    share = share_of_level(check_log_e(lost, won))
    return CheckEvidence(
        check.value,
        **by_sides,
        lost=lost,
        won=won,
        share_of_level=share,
    )


def _compute_means(
    side: str,
    sums: Mapping[str, float],
    pairs: int,
) -> PairFigures | None:
    """Computes one side's means over the pairs; None without pairs, because a zero would look
    measured.
    """
    if not pairs:
        return None
    names = ("ms", "output_tokens", "paired_usd")
    return PairFigures(*(sums.get(f"{side}.{name}", 0.0) / pairs for name in names))


def list_figures(status: ShadowStatus) -> Sequence[tuple[str, str]]:
    """Lists (name, value) rows for people."""
    limits = status.shadow.limits
    usage_today = status.today
    evidence = status.hidden
    if status.share_of_level is not None:
        evidence = f"{format_percent(status.share_of_level, 0)} of the level"
    unpriced = f" and {status.unpriced:,} requests without a price" if status.unpriced else ""
    a_day = f" of {format_usd(limits.usd_per_day)}" if limits.usd_per_day is not None else ""
    requests = f"{usage_today.requests:,} of {limits.requests_per_day:,} requests"
    rows = [
        (
            "mirrored",
            f"{status.mirrored:,}, with {status.pairs:,} pairs of answers",
        ),
        (
            "evidence that it is worse",
            f"{evidence}: HARM" if status.harm else evidence,
        ),
        *list_verdict_figures(status.shadow, status.verdict, status.judge_usd),
        ("cost", format_usd(status.cost_usd) + unpriced),
        ("today", f"{requests}, {format_usd(usage_today.cost_usd)}{a_day}"),
    ]
    for name, side in (
        ("incumbent", status.incumbent),
        ("candidate", status.candidate),
    ):
        if side is not None:
            means = (
                f"{format_milliseconds(side.ms)}, {side.output_tokens:,.0f} tokens, "
                f"{format_answer_price(side.cost_usd)}"
            )
            rows.append((f"{name}, mean", means))
    return rows
