"""A policy declares a team's thresholds before any data is seen; it is immutable and hashed."""

import re
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Final

from harness.frame.content_hash import digest
from harness.frame.errors import InputError
from harness.frame.formatting import format_number
from harness.frame.patience import DEFAULT_PATIENCE_S, RETRY_PAUSES_S
from harness.gate.online.guardrails import CanaryJudge, Guardrail, Guardrails
from harness.gate.pins import ServedPin
from harness.gate.suite_plan import Claim, ClaimPopulation, PrimaryCombination

_REFERENCE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/#-]{0,63}")


class ChangeReferenceRule(StrEnum):
    OPTIONAL = "optional"
    REQUIRED = "required"  # no canary opens without one


def parse_change_reference(text: str) -> str:
    """Returns the reference without the spaces around it; empty for none. Raises InputError."""
    reference = text.strip()
    if reference and not _REFERENCE.fullmatch(reference):
        raise InputError(
            f"{text!r} is no reference of a change request: write one word of at most 64 "
            "letters, digits and . _ : / # -, such as CHG0012345"
        )
    return reference


class PromotionMode(StrEnum):
    AUTOMATIC = "automatic"
    APPROVED = "approved"  # a person, not the proposer, after the verdict


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """Sets the thresholds of the offline gate (statistics.md §1)."""

    claim: Claim = Claim.SUPERIOR  # claim of a candidate
    margin: float = 0.05  # allowed loss of the mean score; the unit is the score's, from 0 to 1
    alpha: float = 0.05  # chance of passing a candidate that is at the limit
    n_max: int | None = None  # items per suite, None for the whole suite
    epochs: int = 1  # answers to each item
    verdict_ttl_s: float = 14 * 86_400.0  # how long a verdict is proof
    # How long a comparison waits for a provider that is away, in pauses of up to 15 minutes.
    infra_patience_s: float = DEFAULT_PATIENCE_S
    # Whether a run goes on as a retry, its answers counting as wrong, where nothing can be read
    # in the first 5.
    unreadable_is_wrong: bool = False
    max_cost_usd: float | None = None  # max_cost_usd, max_tokens: per run
    max_tokens: int | None = None
    run_max_age_s: float = 86_400.0  # how old a shared incumbent run may be
    # Part of the providers' names for the served model that must not change.
    served_pin: ServedPin = ServedPin.MODEL
    min_saving: float = 0.1  # share of the incumbent's cost that the claim CHEAPER must save
    # The most that one item of the candidate may cost, in mean costs of the incumbent's items.
    cost_ceiling: float = 10.0
    # Claim that several primary suites show together.
    primaries: PrimaryCombination = PrimaryCombination.WEIGHTED
    # Claims that a proposal may choose among, beside the policy's own.
    claims: tuple[Claim, ...] = tuple(Claim)
    # The largest margin that a proposal may choose; none for the policy's own.
    margin_max: float | None = None
    # Alpha of all candidates on one route in 90 days together; none for no limit.
    alpha_budget: float | None = None
    # The items that a claim is about; `these` takes `epochs` of 2 or more (§1.15).
    population: ClaimPopulation = ClaimPopulation.LIKE_THESE

    @property
    def allowed_claims(self) -> tuple[Claim, ...]:
        return tuple(claim for claim in Claim if claim in (self.claim, *self.claims))

    @property
    def claimed(self) -> tuple[Claim, float, float]:
        """What a candidate has to show: the claim, its allowed loss and the share saved."""
        loss = 0.0 if self.claim is Claim.SUPERIOR else self.margin
        return self.claim, loss, self.min_saving if self.claim is Claim.CHEAPER else 0.0

    def infra_pause_s(self, failures: int) -> float:
        """Returns the pause after so many failures, at least one, the newest included; 0 where
        none is tried again.
        """
        before, after = RETRY_PAUSES_S[: failures - 1], RETRY_PAUSES_S[failures - 1 :]
        left_s = self.infra_patience_s - sum(before)
        return max(0.0, min(after[0], left_s)) if after else 0.0

    @property
    def largest_margin(self) -> float:
        return max(self.margin, self.margin_max or 0.0)


_PLAIN: Final = GatePolicy()


@dataclass(frozen=True, slots=True)
class CanaryStep:
    """Sets one share of traffic that a canary gets."""

    weight_bps: int  # share of the callers
    min_exposures: int  # canary units scored before it may be left
    certify: bool = False  # leave only certified (statistics.md §2.7)
    deadline_s: float = 7 * 86_400.0  # then a person looks
    # min_s, min_peak_s: the step lasts at least so long, and so long within the policy's peak
    # hours, with any evidence; they are never enough by themselves.
    min_s: float = 0.0
    min_peak_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PeakHours:
    """Says when traffic is at its height, every day, in hours UTC; 22 to 6 goes over
    midnight.
    """

    start_h: int = 8  # start_h, end_h: hours UTC; from 22 to 6 goes over midnight
    end_h: int = 18


DEFAULT_STEPS = (
    CanaryStep(100, 300),
    CanaryStep(500, 1000),
    CanaryStep(2500, 3000, certify=True),
)


@dataclass(frozen=True, slots=True)
class CanaryPolicy:
    """Sets the thresholds of the online guard (statistics.md §2)."""

    # Shares that a candidate gets one after the other.
    steps: tuple[CanaryStep, ...] = DEFAULT_STEPS
    alpha: float = 0.04  # chance of a false rollback, over the whole rollout
    rho: float = 1.0  # tolerated odds ratio of failures
    rho_ni: float = 2.0  # odds ratio below which a step can be certified
    # Below this failure rate a canary is not harmful, with any odds ratio.
    p0: float = 0.01
    certificate: float = 20.0  # evidence (an e-value) that certifies a step
    block_size: int = 100  # units that are counted and tested together
    # After it an outcome that did not come is missing, in both arms alike.
    missing_s: float = 600.0
    local_alpha: float = 0.01  # the same, of all routers' own guards; 0 for none
    guardrails: Guardrails = field(default_factory=Guardrails)  # beside errors
    peak: PeakHours = field(default_factory=PeakHours)  # for the steps' min_peak_s
    # After the promotion, how long the incumbent before it keeps bake_bps of the traffic as a
    # control; 0 for no bake.
    bake_s: float = 86_400.0
    bake_bps: int = 100  # share of the callers who keep the old model in the bake
    # After each new share, how long a conversation that is under way stays with the incumbent;
    # 0 for no such time.
    handover_s: float = 1_800.0
    # The model that feeds the guardrail `judge`; both are there, or none.
    judge: CanaryJudge | None = None
    # At each new share and router, for how long no guardrail counts times, of either arm.
    warm_up_s: float = 600.0
    # Nor does one before the candidate's so many units; a third of the first step's minimum at
    # the most.
    warm_up_units: int = 100

    @property
    def cold_units(self) -> int:
        """How many units the candidate's warm-up lasts at least."""
        return min(self.warm_up_units, self.steps[0].min_exposures // 3)

    @property
    def tolerated(self) -> dict[Guardrail, float]:
        """Tolerated ratio of every guardrail that is on, errors first."""
        return {Guardrail.ERRORS: self.rho, **self.guardrails.tolerated()}

    def with_cost(self, accepted: float | None, *, priced: bool) -> "CanaryPolicy":
        """Returns the policy of a canary whose candidate may cost `accepted` times as much as
        the incumbent. priced: whether both have a price; without, tokens are guarded instead.
        """
        cost, tokens = self.guardrails.cost_per_success, self.guardrails.output_tokens
        if cost is False:
            return self
        cost = max(cost, accepted or 0.0)
        tokens = cost if tokens is False and not priced else tokens
        guardrails = replace(self.guardrails, cost_per_success=cost, output_tokens=tokens)
        return replace(self, guardrails=guardrails)


@dataclass(frozen=True, slots=True)
class CostAcceptance:
    """Lets one proposal's candidate cost more than the guardrail of its route's policy."""

    ratio: float  # the most that it may cost, in costs of the incumbent
    because: str
    by: str  # the approver's name

    @property
    def text(self) -> str:
        because = self.because.rstrip(".")
        return f"{self.by} accepts up to {format_number(self.ratio)} times the cost: {because}"


@dataclass(frozen=True, slots=True)
class Policy:
    """Sets a team's thresholds for the gate and the canary."""

    name: str = "default"
    promotion: PromotionMode = PromotionMode.AUTOMATIC
    # How long a passed proposal waits for a person before it expires.
    approval_ttl_s: float = 7 * 86_400.0
    self_approval: bool = False
    # Whether a swap names the change request under which it is made.
    change_reference: ChangeReferenceRule = ChangeReferenceRule.OPTIONAL
    gate: GatePolicy = field(default_factory=GatePolicy)
    canary: CanaryPolicy = field(default_factory=CanaryPolicy)

    @property
    def digest(self) -> str:
        return digest(asdict(self))
