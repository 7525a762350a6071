"""A policy declares a team's thresholds before it sees any data; it is immutable and hashed.

A proposal stores its whole policy, so a later change of the configuration does not change its
thresholds. Values are checked where the configuration is read (`harness.app.configuration`),
and each route's own rules are in `harness.proposals.route_rules`.
"""

import re
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Final

from harness.frame.errors import InputError
from harness.frame.failures import DEFAULT_PATIENCE_S, RETRY_PAUSES_S
from harness.frame.formatting import format_number
from harness.frame.plain_data import digest
from harness.gate.online.guardrails import CanaryJudge, Guardrail, Guardrails
from harness.gate.pins import ServedPin
from harness.gate.suite_plan import (
    Claim,
    ClaimPopulation,
    PrimaryCombination,
)

_REFERENCE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/#-]{0,63}")


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


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """Sets the thresholds of the offline gate (statistics.md §1)."""

    claim: Claim = Claim.SUPERIOR  # claim that a candidate must show
    margin: float = 0.05  # allowed loss of the mean score, from 0 to 1
    alpha: float = 0.05  # probability of passing a candidate at the limit of its claim
    n_max: int | None = None  # maximum items per suite, None for the whole suite
    epochs: int = 1  # answers to each item
    verdict_ttl_s: float = 14 * 86_400.0  # how long a verdict is valid
    # How long a comparison waits for an unavailable provider, with pauses of up to 15 minutes.
    infra_patience_s: float = DEFAULT_PATIENCE_S
    # Whether a retried run continues after 5 unreadable first answers, counting them as wrong.
    unreadable_is_wrong: bool = False
    max_cost_usd: float | None = None  # max_cost_usd, max_tokens: maximum per run
    max_tokens: int | None = None
    run_max_age_s: float = 86_400.0  # maximum age of a reused incumbent run
    # Part of the served model's name that must not change.
    served_pin: ServedPin = ServedPin.MODEL
    min_saving: float = 0.1  # share of the incumbent's cost to save (cheaper_and_not_worse)
    # Maximum cost of one candidate item, as a multiple of the incumbent's mean cost per item.
    cost_ceiling: float = 10.0
    # How primary suites combine: weighted mean, or any one.
    primaries: PrimaryCombination = PrimaryCombination.WEIGHTED
    # Claims that a proposal may choose besides the policy's own claim.
    claims: tuple[Claim, ...] = tuple(Claim)
    # Largest margin that a proposal may choose; none means the policy's own margin.
    margin_max: float | None = None
    # Total alpha of all candidates on one route in 90 days; none for no limit.
    alpha_budget: float | None = None
    # The claim is about all items like the suite's, or about these items only. `these` needs
    # `epochs` above 1 (statistics §1.15).
    population: ClaimPopulation = ClaimPopulation.LIKE_THESE

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

    weight_bps: int  # share of the callers
    min_exposures: int  # minimum of scored canary units before the rollout leaves the step
    certify: bool = False  # leave the step only with a certificate (statistics.md §2.7)
    deadline_s: float = 7 * 86_400.0  # time after which the rollout pauses for a person
    # min_s, min_peak_s: minimum duration of the step, and minimum duration within the policy's
    # peak hours, besides the evidence.
    min_s: float = 0.0
    min_peak_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PeakHours:
    """The daily hours of peak traffic in UTC; 22 to 6 crosses midnight."""

    start_h: int = 8  # start_h, end_h: hours UTC; 22 to 6 crosses midnight
    end_h: int = 18


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
    alpha: float = 0.04  # probability of a false rollback, over the whole rollout
    rho: float = 1.0  # tolerated odds ratio of failures
    rho_ni: float = 2.0  # odds ratio below which a step can be certified
    # A canary with a lower failure rate is not harmful, at any odds ratio.
    p0: float = 0.01
    certificate: float = 20.0  # evidence (an e-value) that certifies a step
    block_size: int = 100  # units that Swapgate counts and tests together
    # An outcome that arrives later counts as missing, in both arms.
    missing_s: float = 600.0
    # How long a caller's later requests count after the caller's first one: a failure of any of
    # them counts once. A step ends only after its callers' windows.
    window_s: float = 600.0
    # Total alpha of the guards by which routers themselves end a canary; 0 for no guard.
    local_alpha: float = 0.01
    guardrails: Guardrails = field(default_factory=Guardrails)  # besides errors
    peak: PeakHours = field(default_factory=PeakHours)  # for the steps' min_peak_s
    # How long the former incumbent keeps bake_bps of the traffic as a control after the
    # promotion; 0 for no bake.
    bake_s: float = 86_400.0
    bake_bps: int = 100  # share of the callers who keep the former incumbent in the bake
    # How long a running conversation stays with the incumbent after each increase of the share;
    # 0 for no time.
    handover_s: float = 1_800.0
    judge: CanaryJudge | None = None  # model for the guardrail `judge`; set both or neither
    # Time without latency guardrails for both arms, from each router's first request at each
    # share.
    warm_up_s: float = 600.0
    # Candidate units before latency guardrails count; at most a third of the first step's
    # minimum.
    warm_up_units: int = 100

    @property
    def cold_units(self) -> int:
        """Returns the minimum length of the candidate's warm-up in units."""
        return min(self.warm_up_units, self.steps[0].min_exposures // 3)

    @property
    def tolerated(self) -> dict[Guardrail, float]:
        """Tolerated ratio of every guardrail that is on, errors first."""
        windows = {Guardrail.CALLER_ERRORS: self.rho} if self.window_s > 0.0 else {}
        return {Guardrail.ERRORS: self.rho, **windows, **self.guardrails.tolerated()}

    def with_cost(self, accepted: float | None, *, priced: bool) -> "CanaryPolicy":
        """Returns the policy for a candidate that may cost `accepted` times as much as the
        incumbent. priced: whether both have a price; if not, the guardrail counts tokens
        instead.
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


@dataclass(frozen=True, slots=True)
class Policy:
    """Sets a team's thresholds for the gate and the canary."""

    name: str = "default"
    promotion: PromotionMode = PromotionMode.AUTOMATIC
    # How long a passed proposal waits for a person before it expires.
    approval_ttl_s: float = 7 * 86_400.0
    self_approval: bool = False
    # Whether a swap must name its change request.
    change_reference: ChangeReferenceRule = ChangeReferenceRule.OPTIONAL
    gate: GatePolicy = field(default_factory=GatePolicy)
    canary: CanaryPolicy = field(default_factory=CanaryPolicy)

    @property
    def digest(self) -> str:
        """A hash of every threshold; two policies with equal hashes decide alike."""
        return digest(asdict(self))


@dataclass(frozen=True, slots=True)
class DriftPolicy:
    """How often and with how many items a suite's drift runs measure incumbents."""

    every_s: float = 86_400.0  # time from the start of a run to the next start
    items: int | None = 200  # items per run, None for the whole suite
    epochs: int = 1  # answers to each item
    alpha: float = 0.05  # probability that an unchanged model ever raises an alarm
    max_cost_usd: float | None = None  # max_cost_usd, max_tokens: maximum per run
    max_tokens: int | None = None
