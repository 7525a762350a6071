"""A policy declares a team's thresholds before it sees any data; it is immutable and hashed.

A proposal stores its whole policy, so a later change of the configuration does not change its
thresholds. Values are checked where the configuration is read (`harness.app.configuration`),
and each route's own rules are in `harness.proposals.route_rules`.
"""

import re
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Final

from harness.frame.configuration.setting import (
    COUNT,
    DAY_S,
    DOLLARS,
    SHARE_RANGE,
    SHORTEST_S,
    TOKENS,
    WAIT_S,
    YEAR_S,
    Range,
    number,
    required,
)
from harness.frame.errors import InputError
from harness.frame.failures import DEFAULT_PATIENCE_S, RETRY_PAUSES_S
from harness.frame.formatting import format_number
from harness.frame.people.audience import Audience, StepAudience
from harness.frame.plain_data import digest
from harness.gate.online.guardrails import RATIO, CanaryJudge, Guardrail, Guardrails
from harness.gate.pins import ServedPin
from harness.gate.suite_plan import (
    Claim,
    ClaimPopulation,
    PrimaryCombination,
)

_REFERENCE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/#-]{0,63}")
# The highest alpha and local alpha add up to less than 1, as the probabilities of a false
# rollback must.
_ALPHA: Final = Range(0.000001, 0.5)
_LOCAL_ALPHA: Final = Range(0.000001, 0.25, zero=True)
# A bake must leave at least half of the traffic to the promoted candidate.
_MOST_HELD_BACK_BPS: Final = 5_000


class ChangeReferenceRule(StrEnum):
    OPTIONAL = "optional"
    REQUIRED = "required"  # no canary opens without a reference


def parse_change_reference(text: str) -> str:
    """Returns the reference without the spaces around it; may be empty. Raises InputError."""
    reference = text.strip()
    if reference and not _REFERENCE.fullmatch(reference):
        raise InputError(
            f"{text[:80]!r} is not a reference of a change request: write one word of at most "
            "64 letters, digits and . _ : / # -, such as CHG0012345"
        )
    return reference


class PromotionMode(StrEnum):
    AUTOMATIC = "automatic"
    APPROVED = "approved"  # a person other than the proposer approves after the verdict


class Retirement(StrEnum):
    """Who proposes a proven spare before the route's model ends."""

    MANUAL = "manual"
    AUTO = "auto"  # Swapproof; verdict, approval and freezes decide as for any proposal


class TrafficProof(StrEnum):
    """Says whose verdict about a suite of traffic may open a canary."""

    JUDGE = "judge"  # the judge's alone
    PEOPLE = "people"  # only with people's labels besides


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """Sets the thresholds of the offline gate (statistics.md §1)."""

    claim: Claim = Claim.SUPERIOR  # claim that a candidate must show
    margin: float = number(0.05, "Allowed loss of the mean score, from 0 to 1.", SHARE_RANGE)
    alpha: float = number(
        0.05,
        "Probability of passing a candidate at the limit of its claim.",
        _ALPHA,
    )
    n_max: int | None = number(
        None,
        "Maximum items per suite, null for the whole suite.",
        COUNT,
        unit="items",
    )
    epochs: int = number(1, "Answers to each item.", Range(1, 1_000))
    verdict_ttl_s: float = number(
        14 * 86_400.0,
        "How long a verdict is valid.",
        Range(1, 10 * YEAR_S),
    )
    infra_patience_s: float = number(
        DEFAULT_PATIENCE_S,
        "How long a comparison waits for an unavailable provider, with pauses of up to 15 "
        "minutes.",
        Range(0, 30 * DAY_S),
    )
    # Whether a retried run continues after 5 unreadable first answers, counting them as wrong.
    unreadable_is_wrong: bool = False
    max_cost_usd: float | None = number(None, "Maximum per run.", DOLLARS)
    max_tokens: int | None = number(None, "Maximum per run.", TOKENS)
    run_max_age_s: float = number(
        86_400.0,
        "Maximum age of a reused incumbent run.",
        Range(1, 10 * YEAR_S),
    )
    # Part of the served model's name that must not change.
    served_pin: ServedPin = ServedPin.MODEL
    min_saving: float = number(
        0.1,
        "Share of the incumbent's cost to save (cheaper_and_not_worse).",
        SHARE_RANGE,
    )
    cost_ceiling: float = number(
        10.0,
        "Maximum cost of one candidate item, as a multiple of the incumbent's mean cost per "
        "item.",
        Range(1, 1_000_000),
    )
    # How primary suites combine: weighted mean, or any one.
    primaries: PrimaryCombination = PrimaryCombination.WEIGHTED
    # Claims that a proposal may choose besides the policy's own claim.
    claims: tuple[Claim, ...] = tuple(Claim)
    margin_max: float | None = number(
        None,
        "Largest margin that a proposal may choose; null means the policy's own margin.",
        SHARE_RANGE,
    )
    alpha_budget: float | None = number(
        None,
        "Total alpha of all candidates on one route in 90 days; null for no limit.",
        Range(0.000001, 1),
    )
    # The claim is about all items like the suite's, or about these items only. `these` needs
    # `epochs` above 1 (statistics §1.15).
    population: ClaimPopulation = ClaimPopulation.LIKE_THESE
    draw_days: int = number(
        7,
        "Whole days, ending yesterday, from which `swapproof suite draw` draws a suite of "
        "traffic.",
        Range(1, 14),
        unit="days",
    )

    @property
    def allowed_claims(self) -> tuple[Claim, ...]:
        """Lists the claims that a proposal may register, in Claim's order."""
        return tuple(claim for claim in Claim if claim in (self.claim, *self.claims))

    @property
    def claimed(self) -> tuple[Claim, float, float]:
        """Returns the claim that a candidate must show, its allowed loss and the share
        saved."""
        loss = 0.0 if self.claim is Claim.SUPERIOR else self.margin
        return (
            self.claim,
            loss,
            self.min_saving if self.claim is Claim.CHEAPER else 0.0,
        )

    def infra_pause_s(self, failures: int) -> float:
        """Returns the pause after this many failures, at least 1; 0 for no further try."""
        before = RETRY_PAUSES_S[: failures - 1]
        after = RETRY_PAUSES_S[failures - 1 :]
        left_s = self.infra_patience_s - sum(before)
        return max(0.0, min(after[0], left_s)) if after else 0.0

    @property
    def largest_margin(self) -> float:
        """The largest allowed loss that a proposal may choose, a share of 1."""
        return max(self.margin, self.margin_max or 0.0)


_PLAIN: Final = GatePolicy()


@dataclass(frozen=True, slots=True)
class CanaryStep:
    """Sets one share of traffic of a canary."""

    weight_bps: int = field(metadata=required("Share of the callers.", range=Range(1, 9_999)))
    min_exposures: int = field(
        metadata=required(
            "Minimum of counted callers of the canary before the rollout leaves the step.",
            range=Range(0, 1_000_000_000),
            own_unit="callers",
        )
    )
    certify: bool = False  # leave the step only with a certificate (statistics.md §2.7)
    deadline_s: float = number(
        7 * 86_400.0,
        "Time after which the rollout pauses for a person.",
        Range(1, YEAR_S),
    )
    min_s: float = number(
        0.0, "Minimum duration of the step, besides the evidence.", Range(0, YEAR_S)
    )
    min_peak_s: float = number(
        0.0,
        "Minimum duration of the step within the policy's peak hours, besides the evidence.",
        Range(0, YEAR_S),
    )
    # The audience from this step on, instead of the policy's.
    audience: Audience | None = None


@dataclass(frozen=True, slots=True)
class PeakHours:
    """The daily hours of peak traffic in UTC; 22 to 6 crosses midnight."""

    start_h: int = number(
        8,
        "Beginning of the peak hours; 22 to 6 crosses midnight.",
        Range(0, 24),
        unit="o'clock (UTC)",
    )
    end_h: int = number(
        18,
        "End of the peak hours.",
        Range(0, 24),
        unit="o'clock (UTC)",
    )


DEFAULT_STEPS = (
    CanaryStep(100, 300),
    CanaryStep(500, 1000),
    CanaryStep(2500, 3000, certify=True),
)


@dataclass(frozen=True, slots=True)
class CanaryPolicy:
    """Sets the thresholds of the online guard (statistics.md §2)."""

    # Shares of traffic that a candidate gets, one after another.
    steps: tuple[CanaryStep, ...] = DEFAULT_STEPS
    alpha: float = number(
        0.04,
        "Probability of a false rollback, over the whole rollout.",
        _ALPHA,
    )
    rho: float = number(1.0, "Tolerated odds ratio of failures.", RATIO)
    rho_ni: float = number(
        2.0,
        "Odds ratio below which a step can be certified.",
        Range(1.01, 100),
    )
    p0: float = number(
        0.01,
        "A canary with a lower failure rate is not harmful, at any odds ratio.",
        Range(0.000001, 0.5),
    )
    certificate: float = number(
        20.0,
        "Evidence (an e-value) that certifies a step.",
        Range(2, 1_000_000),
    )
    block_size: int = number(
        100,
        "Callers that Swapproof counts and tests together.",
        Range(1, 1_000),
        unit="callers",
    )
    missing_s: float = number(
        600.0,
        "An outcome that arrives later counts as missing, in both arms.",
        Range(SHORTEST_S, 7 * DAY_S),
    )
    window_s: float = number(
        600.0,
        "How long a caller's later requests count after the caller's first one: a failure of "
        "any of them counts once. A step ends only after its callers' windows.",
        WAIT_S,
    )
    local_alpha: float = number(
        0.01,
        "Total alpha of the guards by which routers themselves end a canary; 0 for no guard.",
        _LOCAL_ALPHA,
    )
    guardrails: Guardrails = field(default_factory=Guardrails)  # besides errors
    peak: PeakHours = field(default_factory=PeakHours)  # for the steps' min_peak_s
    bake_s: float = number(
        86_400.0,
        "How long the former incumbent keeps bake_bps of the traffic as a control after the "
        "promotion; 0 for no bake.",
        Range(0, YEAR_S),
    )
    bake_bps: int = number(
        100,
        "Share of the callers who keep the former incumbent in the bake.",
        Range(1, _MOST_HELD_BACK_BPS),
    )
    handover_s: float = number(
        1_800.0,
        "How long a running conversation stays with the incumbent after each increase of the "
        "share; 0 for no time.",
        Range(0, DAY_S),
    )
    judge: CanaryJudge | None = None  # model for the guardrail `judge`; set both or neither
    # Callers that are in the canary before the share's draw, and callers that never are.
    audience: Audience | None = None
    warm_up_s: float = number(
        600.0,
        "Time without latency guardrails for both arms, from each router's first request at "
        "each share.",
        Range(0, DAY_S),
    )
    warm_up_units: int = number(
        100,
        "Callers of the candidate before latency guardrails count; at most a third of the "
        "first step's minimum.",
        Range(0, 1_000),
        unit="callers",
    )

    @property
    def cold_exposures(self) -> int:
        """Returns the minimum length of the candidate's warm-up in exposures."""
        return min(self.warm_up_units, self.steps[0].min_exposures // 3)

    @property
    def audiences(self) -> tuple[StepAudience, ...]:
        """Lists each step's audience, a step's own or an earlier one's; empty without one."""
        steps: list[StepAudience] = []
        audience = self.audience or Audience()
        for step in self.steps:
            audience = step.audience or audience
            steps.append(StepAudience(step.weight_bps, audience))
        return tuple(steps) if any(step.audience.text for step in steps) else ()

    @property
    def never_measured(self) -> str:
        """Describes the callers that no step's canary gets; empty if it may get all."""
        return self.audiences[-1].audience.never_text if self.audiences else ""

    @property
    def tolerated(self) -> dict[Guardrail, float]:
        """Tolerated ratio of every guardrail that is on, errors first."""
        windows = {Guardrail.CALLER_ERRORS: self.rho} if self.window_s > 0.0 else {}
        return {Guardrail.ERRORS: self.rho, **windows, **self.guardrails.tolerated()}

    def with_cost(self, accepted: float | None, *, priced: bool) -> "CanaryPolicy":
        """Returns the policy for a candidate that may cost `accepted` times as much as the
        incumbent.

        Args:
            priced: whether both have a price; if not, the guardrail counts tokens instead.
        """
        cost = self.guardrails.cost_per_success
        tokens = self.guardrails.output_tokens
        if cost is False:
            return self
        cost = max(cost, accepted or 0.0)
        tokens = cost if tokens is False and not priced else tokens
        guardrails = replace(self.guardrails, cost_per_success=cost, output_tokens=tokens)
        return replace(self, guardrails=guardrails)


@dataclass(frozen=True, slots=True)
class CostAcceptance:
    """Lets one proposal's candidate cost more than the guardrail of its route's policy."""

    ratio: float  # maximum cost, in costs of the incumbent
    because: str
    by: str  # the approver's name

    @property
    def text(self) -> str:
        because = self.because.rstrip(".")
        return f"{self.by} accepts up to {format_number(self.ratio)} times the cost: {because}"


@dataclass(frozen=True, slots=True)
class SameModelConfirmation:
    """An approver's statement that both arms of a proposal may be served by the same model."""

    because: str
    by: str  # the approver's name

    @property
    def text(self) -> str:
        because = self.because.rstrip(".")
        return f"{self.by} confirms that both models may be served by the same: {because}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFields:
    """The fields of a policy, as the configuration file has them under the policy's name."""

    # approved: a person must approve a passed candidate before its canary.
    promotion: PromotionMode = PromotionMode.AUTOMATIC
    approval_ttl_s: float = number(
        7 * 86_400.0,
        "How long a passed proposal waits for a person, and a measured one for people's "
        "labels, before it expires.",
        Range(1, 10 * YEAR_S),
    )
    # Whether the proposer may approve, and whether one person may create both people's keys.
    self_approval: bool = False
    # Whose verdict counts about a suite of traffic: people's labels, or the judge's.
    proof: TrafficProof = TrafficProof.PEOPLE
    # Whether a swap must name its change request.
    change_reference: ChangeReferenceRule = ChangeReferenceRule.OPTIONAL
    # auto: Swapproof proposes a proven spare before the route's model ends.
    retire: Retirement = Retirement.MANUAL
    retire_before_d: int = number(
        14,
        "Days before the model's end by which the spare's canary opens (retire: auto).",
        Range(1, 60),
        unit="days",
    )
    gate: GatePolicy = field(default_factory=GatePolicy)  # thresholds of the evals
    canary: CanaryPolicy = field(default_factory=CanaryPolicy)  # thresholds of the canary


@dataclass(frozen=True, slots=True)
class Policy(PolicyFields):
    """Sets a team's thresholds for the gate and the canary."""

    name: str = "default"

    @property
    def digest(self) -> str:
        """A hash of every threshold; two policies with equal hashes decide alike."""
        return digest(asdict(self))


@dataclass(frozen=True, slots=True)
class DriftPolicy:
    """How often and with how many items a suite's drift runs measure incumbents."""

    every_s: float = number(
        86_400.0,
        "Time from the start of a run to the next start.",
        Range(1, YEAR_S),
    )
    items: int | None = number(
        200,
        "Items per run, null for the whole suite.",
        COUNT,
        unit="items",
    )
    epochs: int = number(1, "Answers to each item.", Range(1, 1_000))
    alpha: float = number(
        0.05,
        "Probability that an unchanged model ever raises an alarm.",
        _ALPHA,
    )
    max_cost_usd: float | None = number(None, "Maximum per run.", DOLLARS)
    max_tokens: int | None = number(None, "Maximum per run.", TOKENS)
