"""Reads the traffic for the estimate of a canary's duration, and plans a canary before it
starts: `RampPlan` has the time of each step and remedies for slow steps, as figures and text.

An estimate decides nothing and stores nothing. `harness.gate.ramp` has the estimate itself;
`harness.gate.explain` shows it for a live canary.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from harness.canary.decision import describe_shared_key
from harness.canary.later_turns import describe_later_turns
from harness.canary.patience import describe_patience
from harness.canary.split import FLAGD_WORKER, LITELLM_WORKER
from harness.frame.errors import InputError
from harness.frame.formatting import (
    format_bps,
    format_estimate,
    format_number,
    format_percent,
    format_quantity,
    format_span,
)
from harness.frame.records.transaction import Transaction
from harness.gate import explain, ramp
from harness.gate.caller_forecast import (
    DAY_S,
    CallerCurve,
    TrafficForecast,
    TrafficPart,
    fit_curve,
    forecast_hours,
    measure_pace,
)
from harness.gate.explain import EstimateBasis
from harness.gate.online.evidence_paths import counts_path, guardrail_weights
from harness.gate.online.guardrails import FailureTally, Guardrail
from harness.gate.online.observation import (
    ObservationBlock,
    TrafficMinute,
    TrafficTotal,
    observed_seconds,
)
from harness.gate.online.rollout import Rollout
from harness.gate.online.rollout_evidence import CARRIED_SHARE
from harness.gate.policy import CanaryPolicy
from harness.gate.ramp import EstimateState, StepPlan, TrafficPace
from harness.proposals.context import ProposalsContext
from harness.routing.control import routes
from harness.routing.proposal import Proposal
from harness.routing.records.observations import Observations
from harness.routing.records.preload import Preload
from harness.routing.records.proposals import Rollouts
from harness.routing.records.routes import Routing
from harness.routing.table import BUCKETS, Arm

MEASURED_PERIOD: Final = timedelta(hours=24)
# A rate of fewer requests is not reliable; then the plan uses `p0`, the policy's normal rate.
FEWEST_REQUESTS: Final = 100
MOST_ROLLOUTS: Final = 20
# In a shorter period, rates of new keys and low rates of requests cannot be measured.
SHORTEST_S: Final = 600.0
# With fewer callers a day, a canary shows only severe harm.
FEW_CALLERS: Final = 50
SPLIT_PERIOD: Final = timedelta(hours=1)
# LiteLLM writes its logs every 10 to 16 s, Swapproof reads them every 10 s, and a block of
# evidence closes after at most 60 s; a busy database adds to that.
LOG_DELAY_S: Final = 120.0
# How each gateway splits, by the prefix of the worker's name in its driver's records.
_SPLITS: Final = {
    LITELLM_WORKER: "LiteLLM splits this route. It assigns each request anew, unless its "
    "session affinity is on, so a caller may meet both models.",
    FLAGD_WORKER: "flagd splits this route by targeting key. Requests without a key get the "
    "incumbent, and are no evidence.",
}


@dataclass(frozen=True)
class RampPlan:
    """The plan of a canary: its steps with their times, and remedies.

    `steps` is empty if `pace` is None. `options` lists remedies for a person; `words` is the
    summary.
    """

    route: str
    policy: CanaryPolicy
    # None if the last hour had too few requests; then no step has a time.
    pace: TrafficPace | None
    steps: tuple[StepPlan, ...]
    options: tuple[str, ...]
    words: str

    @property
    def state(self) -> EstimateState:
        """Tells whether the duration is known, and else why not."""
        if not self.steps:
            return EstimateState.NO_TRAFFIC
        is_known = all(step.typical_s is not None for step in self.steps)
        return EstimateState.KNOWN if is_known else EstimateState.NOT_IN_TIME

    @property
    def in_time(self) -> bool:
        """Tells whether every step should end before its deadline; False without a pace."""
        return bool(self.steps) and all(step.in_time for step in self.steps)


@dataclass(frozen=True, slots=True)
class ExpectedTraffic:
    """The traffic that a person expects. Raises InputError for fewer requests than callers."""

    callers_per_day: float
    requests_per_day: float

    def __post_init__(self) -> None:
        if self.requests_per_day < self.callers_per_day:
            raise InputError(
                f"{format_number(self.requests_per_day)} requests a day cannot come from "
                f"{format_number(self.callers_per_day)} callers: expect at least one request "
                "for each caller"
            )

    @property
    def text(self) -> str:
        return (
            f"For {format_number(self.callers_per_day)} callers and "
            f"{format_number(self.requests_per_day)} requests a day:"
        )


def expect_traffic(
    callers_per_day: float | None, requests_per_day: float | None
) -> ExpectedTraffic | None:
    """Returns the traffic that a person expects; None if the person gave no number.

    Without a number of requests, each caller sends one. Raises InputError for requests without
    callers.
    """
    if callers_per_day is None and requests_per_day is None:
        return None
    if callers_per_day is None:
        raise InputError("requests a day need callers a day: set --callers-per-day, too")
    return ExpectedTraffic(callers_per_day, requests_per_day or callers_per_day)


def estimate_for_route(
    ctx: ProposalsContext,
    route: str,
    policy: str | None = None,
    expected: ExpectedTraffic | None = None,
) -> RampPlan:
    """Plans a canary.

    Args:
        policy: its name, None for the route's.
        expected: None for the route's recorded traffic.

    Raises NotFound for an unknown route or policy.
    """
    with ctx.store.read() as tx:
        stored_route = routes.require_route(tx, route)
        policy_in_force = ctx.policy(policy or stored_route.settings.policy)
        return estimate_for_policy(ctx, tx, route, policy_in_force.canary, expected)


def estimate_for_proposal(ctx: ProposalsContext, proposal: Proposal) -> RampPlan:
    """Plans the canary of a proposal by the policy that the proposal has stored."""
    with ctx.store.read() as tx:
        return estimate_for_policy(ctx, tx, proposal.route, proposal.policy.canary)


def estimate_for_policy(
    ctx: ProposalsContext,
    tx: Transaction,
    route: str,
    policy: CanaryPolicy,
    expected: ExpectedTraffic | None = None,
) -> RampPlan:
    """Plans a canary of this policy on this route, from the last hour's pace.

    A route without traffic in it gets a plan without a pace or steps, whose text says so.
    """
    now = ctx.clock.now()
    totals = Observations(tx).totals(since=now - MEASURED_PERIOD, route=route)
    traffic = _measure_traffic(tx, route, policy, totals, now)
    if expected is not None:
        traffic = assume_traffic(expected, totals, policy, now)
    pace = traffic.pace if traffic else None
    seconds = observed_seconds(totals, now)
    remarks = describe_shared_key(tx, route)
    remarks = f" {remarks}" if remarks else ""
    if split := describe_split(Observations(tx).traffic(since=now - SPLIT_PERIOD, route=route)):
        remarks += f" {split} {describe_gateway_canary(policy, pace)}"
    stored_route = Routing(tx).route(route)
    if (
        not split
        and totals
        and stored_route is not None
        and Guardrail.LEAVING in policy.tolerated
    ):
        remarks += f" {describe_patience(tx, stored_route, now)}"
    requests = sum(total.requests for total in totals)
    short_period = describe_short_period(requests, seconds) if seconds < SHORTEST_S else ""
    decision = (offer_decision(route),)
    if traffic is None or pace is None:
        words = explain.no_pace_text(route, requests) + remarks
        if not requests:
            return RampPlan(route, policy, None, (), (), words)
        text = f"{short_period} {describe_failing_callers(policy)} {words}"
        return RampPlan(route, policy, None, (), decision, text)
    limit_s = stored_route.settings.total_timeout_s if stored_route else 0.0
    windows_s = policy.window_s + limit_s if policy.window_s else 0.0
    steps = ramp.plan_ramp(policy, pace, windows_s, traffic.forecast)
    may_mirror = stored_route is not None and not stored_route.settings.side_effects
    options = explain.ramp_options(steps, may_mirror=may_mirror)
    few_callers = describe_few_callers(policy, pace, traffic.callers_per_day)
    if few_callers and (options or short_period):
        options = (*options, *decision)
    words = explain.ramp_summary(pace, steps)
    later_turns = describe_later_turns(policy, pace, windows_s)
    words += f" {later_turns}" if later_turns else ""
    warm_up = explain.describe_warm_up(policy)
    words += f" {warm_up[:1].upper()}{warm_up[1:]}." if warm_up else ""
    peak = explain.describe_peak(policy)
    words += f" {peak}" if peak else ""
    opening = "" if pace.measured else short_period
    if expected is not None:
        opening = expected.text
    text = " ".join(part for part in (opening, few_callers, words) if part)
    return RampPlan(route, policy, pace, steps, options, text + remarks)


def describe_short_period(requests: int, seconds: float) -> str:
    """Describes an observed period that is too short for an estimate.

    Args:
        seconds: its length.
    """
    a_day = requests * DAY_S / seconds
    return (
        f"At most {format_quantity(requests, 'caller')} came in {format_estimate(seconds)}, "
        f"or {format_number(a_day, 2)} a day: this period is too short for an estimate."
    )


def describe_failing_callers(policy: CanaryPolicy) -> str:
    """Describes the harm that a canary with few callers can still detect."""
    return (
        f"With fewer than {FEW_CALLERS} callers a day a canary shows only severe harm: "
        f"it takes {count_failing_callers(policy)} callers in the canary, all of whose "
        "requests fail, to roll it back. Each caller counts once, so few callers cannot show a "
        "loss of a few percent."
    )


def describe_few_callers(
    policy: CanaryPolicy, pace: TrafficPace, callers_per_day: float | None = None
) -> str:
    """Describes the limits of a canary on a route with few callers a day.

    Without counted callers, the text describes the general case.

    Args:
        callers_per_day: None for the pace of all 24 hours.
    """
    callers = pace.units_per_hour * 24.0 if callers_per_day is None else callers_per_day
    last = policy.steps[-1]
    share = last.weight_bps / BUCKETS
    if callers >= FEW_CALLERS:
        if pace.measured:
            return ""
        longest = max(step.min_exposures / step.weight_bps for step in policy.steps)
        needed_s = longest * BUCKETS / FEW_CALLERS * DAY_S
        return (
            f"This route's callers are not counted yet: with only {FEW_CALLERS} callers "
            f"a day, one step takes {format_estimate(needed_s)} or longer."
        )
    meeting_callers = callers * share
    no_meeting_share = (1.0 - share) ** callers
    return (
        f"About {format_number(callers, 2)} callers come in a day, and at "
        f"{format_bps(last.weight_bps)} about {format_number(meeting_callers, 2)} of them "
        "meet the candidate. If they are the same each day, "
        f"{format_percent(no_meeting_share, significant=2)} of canaries meet no caller. "
        f"{describe_failing_callers(policy)}"
    )


def describe_split(traffic: Iterable[TrafficMinute]) -> str:
    """Describes how another gateway splits a route, if the traffic's records name a gateway."""
    drivers = {row.worker.partition("-")[0] + "-" for row in traffic}
    return next((text for driver, text in _SPLITS.items() if driver in drivers), "")


def describe_gateway_canary(policy: CanaryPolicy, pace: TrafficPace | None) -> str:
    """Describes what a canary that another gateway splits can detect, and how fast."""
    share_bps = policy.steps[0].weight_bps
    failing = count_failing_callers(policy, share_bps)
    after = ""
    if pace is not None:
        met_s = failing * 3600.0 * BUCKETS / (pace.requests_per_hour * share_bps)
        after = f", about {format_estimate(met_s + LOG_DELAY_S)} after the first"
    return (
        "The canary sees failures and latency, not callers who leave, tokens, cost or the "
        "answers' content. If "
        f"all requests to the candidate fail at {format_bps(share_bps)}, {failing} of them "
        f"cause a rollback{after}: up to {format_span(LOG_DELAY_S)} pass until the gateway's "
        "logs are evidence. Only the gateway's retries answer the callers until then."
    )


def count_failing_callers(policy: CanaryPolicy, share_bps: int | None = None) -> int:
    """Counts the failing callers that cause a rollback; by default at the last step's share.

    Assumes that all these callers meet the candidate and fail, and that no caller of the
    incumbent fails. Returns at most 100. Source: `evidence_paths.counts_path`, the same path
    that a live canary follows.
    """
    most = 100
    shares = [(share_bps or policy.steps[-1].weight_bps) / BUCKETS] * most
    path = counts_path([FailureTally(1, 1, 1, 1)] * most, policy.rho, shares=shares)
    weight = guardrail_weights(policy.tolerated)[Guardrail.ERRORS]
    over = path >= -math.log(policy.alpha * CARRIED_SHARE * weight)
    return int(over.argmax()) + 1 if over.any() else most


def offer_decision(route: str) -> str:
    """Offers the two commands by which a person continues without the missing evidence."""
    return (
        f"A person may decide: `swapproof canary advance {route} --reason …` moves to the next "
        f"share, and `swapproof canary promote {route} --reason …` promotes the candidate, "
        "both without the missing evidence. Harm still causes a rollback, also in the bake."
    )


@dataclass(frozen=True, slots=True)
class MeasuredTraffic:
    """A route's pace, and the forecast that continues it."""

    pace: TrafficPace
    forecast: TrafficForecast

    @property
    def callers_per_day(self) -> float:
        return self.forecast.curve.count(self.forecast.requests_per_day)


def read_traffic(
    tx: Transaction, rollout: Rollout, now: datetime, *, held: bool
) -> EstimateBasis:
    """Reads the traffic for the estimate of a live canary.

    Args:
        held: whether a hold stops it.
    """
    stored_route = Routing(tx).route(rollout.route)
    limit_s = stored_route.settings.total_timeout_s if stored_route else 0.0
    window_s = rollout.policy.window_s
    return EstimateBasis(
        Observations(tx).parts(rollout.route, since=_counted_since(now)),
        windows_s=window_s + limit_s if window_s else 0.0,
        held=held,
    )


def preload_traffic(tx: Transaction, routes: Collection[str], now: datetime) -> None:
    """Loads the rows that `read_traffic` reads, for several routes together."""
    Preload(tx).routes(routes)
    Observations(tx).preload_parts(routes, since=_counted_since(now))


def _counted_since(now: datetime) -> datetime:
    """Returns the midnight (UTC) before the last one: routers count callers by UTC day."""
    return now.replace(hour=0, minute=0, second=0, microsecond=0) - MEASURED_PERIOD


def _measure_traffic(
    tx: Transaction,
    route: str,
    policy: CanaryPolicy,
    totals: Sequence[TrafficTotal],
    now: datetime,
) -> MeasuredTraffic | None:
    """Measures the route's traffic; None for few requests in a short period, or none in the
    last hour.
    """
    requests = sum(total.requests for total in totals)
    if requests < FEWEST_REQUESTS and observed_seconds(totals, now) < SHORTEST_S:
        return None
    parts = Observations(tx).parts(route, since=_counted_since(now))
    exposures = None
    if not any(part.callers for part in parts):
        exposures = _find_exposures_per_hour(tx, route)
    return measure_traffic(parts, exposures, _find_rate(totals, policy), now)


def measure_traffic(
    parts: Sequence[TrafficPart],
    exposures: float | None,
    rate: tuple[float, bool],
    now: datetime,
) -> MeasuredTraffic | None:
    """Measures the pace of the last hour; None without a request in it.

    Args:
        exposures: new callers an hour from an earlier canary, for routes whose callers no
            router counts; None without one. Without them, requests stand in for callers, and
            `measured` is False.
        rate: the failure rate, and whether it is measured.
    """
    per_hour = measure_pace(parts, now)
    if per_hour is None:
        return None
    hourly = forecast_hours(parts, per_hour, now)
    curve = fit_curve(parts)
    measured = curve is not None or exposures is not None
    if curve is None:
        curve = CallerCurve(turns=max(1.0, per_hour / (exposures or per_hour)))
    forecast = TrafficForecast(now, hourly, curve, began=now)
    pace = TrafficPace(
        units_per_hour=curve.count(per_hour),
        requests_per_hour=per_hour,
        failure_rate=rate[0],
        measured=measured,
        rate_measured=rate[1],
    )
    return MeasuredTraffic(pace, forecast)


def assume_traffic(
    expected: ExpectedTraffic,
    totals: Sequence[TrafficTotal],
    policy: CanaryPolicy,
    now: datetime,
) -> MeasuredTraffic:
    """Returns steady traffic of callers who come once a day."""
    rate, is_measured = _find_rate(totals, policy)
    pace = TrafficPace(
        expected.callers_per_day / 24.0,
        expected.requests_per_day / 24.0,
        rate,
        measured=True,
        rate_measured=is_measured,
    )
    return MeasuredTraffic(pace, ramp.forecast_pace(pace, now))


def _find_rate(totals: Sequence[TrafficTotal], policy: CanaryPolicy) -> tuple[float, bool]:
    """Returns the failure rate, and whether it is measured; else it is the policy's `p0`."""
    rate = _measure_failure_rate(totals)
    return (policy.p0, False) if rate is None else (rate, True)


def _measure_failure_rate(totals: Sequence[TrafficTotal]) -> float | None:
    """Returns the share of requests that the incumbent failed, also if a fallback answered
    them.

    Returns None below FEWEST_REQUESTS; then the plan uses the policy's `p0`.
    """
    own = [total for total in totals if total.arm == Arm.INCUMBENT.value]
    asked = sum(total.requests for total in own)
    if asked < FEWEST_REQUESTS:
        return None
    return sum(total.charged for total in own) / asked


def _find_exposures_per_hour(tx: Transaction, route: str) -> float | None:
    """Returns exposures an hour of the newest rollout that measured them; None without such a
    rollout.
    """
    for rollout in Rollouts(tx).list(route=route, limit=MOST_ROLLOUTS):
        if pace := measure_exposures_per_hour(Observations(tx).blocks(rollout.id)):
            return pace
    return None


def measure_exposures_per_hour(blocks: Sequence[ObservationBlock]) -> float | None:
    """Returns exposures an hour over the blocks' time; None if it is shorter than
    SHORTEST_S.
    """
    if not blocks:
        return None
    began = min(block.opened_at for block in blocks)
    ended = max(block.closed_at for block in blocks)
    seconds = (ended - began).total_seconds()
    if seconds < SHORTEST_S:
        return None
    return sum(block.units for block in blocks) * 3600.0 / seconds
