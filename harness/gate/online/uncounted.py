"""Why the router could not count a caller for either arm, and which setting would help.

The router adds these requests up in `ObservationBlock.uncounted`. They are no exposures, so no
evidence uses them. If they are most of a step's requests, the step holds and says why. Requests
of callers that have counted already in this period are not among them.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from harness.frame.formatting import format_percent, format_quantity
from harness.gate.online.guardrails import NO_SPLIT, ArmSplit
from harness.gate.online.outcome import OutcomeKind, OutcomeReason, outcome_key


class UncountedReason(StrEnum):
    """Why a request became no exposure. The values are stored in blocks."""

    HANDOVER = "handover"  # the conversation began before the step
    OPT_OUT = "opt_out"  # the client's key takes part in no canary
    SWITCH = "switch"  # a switch chose the target
    KEEP_WARM = "keep_warm"  # the request kept a fallback warm
    AGENT = "agent"  # an agent chose the target itself
    MAX_KEYS = "max_keys"  # the router remembers no further caller
    UNSUPPORTED = "unsupported"  # the candidate lacks an ability that the request needs
    AUDIENCE = "audience"  # a rule of the canary's audience chose the arm, so it has no control


UNCOUNTED_WORDS: Final[Mapping[str, str]] = {
    UncountedReason.HANDOVER: "the conversation began before the step",
    UncountedReason.OPT_OUT: "the client's key takes part in no canary",
    UncountedReason.SWITCH: "a switch chose the target",
    UncountedReason.KEEP_WARM: "the request kept a fallback warm",
    UncountedReason.AGENT: "an agent chose the target itself",
    UncountedReason.MAX_KEYS: "the router remembers no further caller today",
    UncountedReason.UNSUPPORTED: "the candidate lacks an ability that the request needs",
    UncountedReason.AUDIENCE: "an audience rule chose the caller's model",
}
_REMEDIES: Final[Mapping[str, str]] = {
    UncountedReason.HANDOVER: "lower the policy's `handover_s`, or wait until it is over",
    UncountedReason.OPT_OUT: "let more API keys take part in canaries",
    UncountedReason.SWITCH: "end the switch (`swapproof switch list`)",
    UncountedReason.KEEP_WARM: "lower the setting `keep_warm`",
    UncountedReason.AGENT: "let the agents call the route instead of a target",
    UncountedReason.MAX_KEYS: "use more routers, or sticky keys that stay the same",
    UncountedReason.UNSUPPORTED: "give these requests a route of their own",
    UncountedReason.AUDIENCE: "name fewer callers in the policy's `canary.audience`",
}
# A step holds if more than this part of its requests could not be counted, and less than
# MIN_REQUESTS would be an accident.
MOST_UNCOUNTED: Final = 0.5
MIN_REQUESTS: Final = 100


def uncounted_words(reason: str) -> str:
    """Writes a reason for people; an unknown reason stands for itself."""
    return UNCOUNTED_WORDS.get(reason, reason.replace("_", " "))


def describe_uncountable(uncounted: Mapping[str, ArmSplit], exposures: int) -> str:
    """Describes why most callers can't be counted; empty if most can.

    Args:
        uncounted: requests by reason.
        exposures: requests that did count.
    """
    found = {reason: split.failures for reason, split in uncounted.items()}
    kept_out = sum(found.values())
    requests = exposures + kept_out
    if requests < MIN_REQUESTS or kept_out <= MOST_UNCOUNTED * requests:
        return ""
    reason = max(found, key=lambda name: (found[name], name))
    share = format_percent(found[reason] / requests, significant=2)
    remedy = _REMEDIES.get(reason, "see `swapproof canary explain`")
    return (
        f"Most callers can't be counted: in {found[reason]:,} of "
        f"{format_quantity(requests, 'request')} ({share}), {uncounted_words(reason)}; {remedy}"
    )


# Swapproof's translation to the candidate has no form for these requests.
_UNTRANSLATED: Final = outcome_key(OutcomeKind.NOT_MEASURED, OutcomeReason.UNSUPPORTED)


class UnsupportedShare(NamedTuple):
    """The callers in the candidate's arm who sent requests that the candidate cannot take.

    requests: the first such request of each caller's day. It needs an ability which the
    candidate lacks, or which Swapproof's translation cannot express. of: these and all assigned
    requests, which are the first of each caller's day, too.
    """

    requests: int
    of: int

    @property
    def share(self) -> float:
        return self.requests / self.of if self.of else 0.0

    @property
    def text(self) -> str:
        """Describes which share of the callers the evidence represents; empty if it represents
        all.
        """
        if not self.requests:
            return ""
        lacking = format_percent(self.share, significant=2)
        rest = format_percent(1.0 - self.share, significant=2)
        return (
            f"The evidence speaks for {rest} of the callers: {lacking} "
            f"({self.requests:,} of {self.of:,}) need an ability that the candidate lacks"
        )


def find_unsupported(
    assigned: ArmSplit,
    outcomes: Mapping[str, ArmSplit],
    uncounted: Mapping[str, ArmSplit],
) -> UnsupportedShare:
    """Counts the requests that the candidate cannot take. The arguments are those of
    `RolloutFigures`.
    """
    lacking = uncounted.get(UncountedReason.UNSUPPORTED, NO_SPLIT).canary
    untranslated = outcomes.get(_UNTRANSLATED, NO_SPLIT).canary
    return UnsupportedShare(lacking + untranslated, assigned.canary + lacking)
