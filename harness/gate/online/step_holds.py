"""Reasons to hold a step with enough exposures, because too many of its requests prove nothing
(statistics.md §2.16).

A request that was not sent, or whose outcome is no evidence, is never read as a success. Each
hold names the reason and both arms' counts, and ends when its cause ends. `decide_action` reads
the reasons. They never delay a rollback.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from harness.frame.formatting import format_percent
from harness.gate.online.guardrails import ArmSplit, Guardrail
from harness.gate.online.left_out import (
    ExclusionCause,
    LeftOutDifference,
    bound_blocks,
    compare_left_out,
)
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.outcome import (
    READINGS,
    OutcomeKind,
    Reading,
    outcome_name,
    split_key,
)
from harness.gate.online.rollout import Rollout
from harness.gate.online.rollout_evidence import (
    CanaryEvidence,
    collect_evidence,
    find_saving_key,
)
from harness.gate.online.uncounted import UnsupportedShare, find_unsupported

# A step holds if a larger part of its canary's assigned requests was not sent.
MOST_NOT_SENT: Final = 0.10
# A step holds if the candidate cannot take a larger part of its requests.
MOST_UNSUPPORTED: Final = 0.01
# A certificate needs this part of each arm's assigned requests as evidence of errors.
LEAST_COUNTED: Final = 0.90


def not_sent_reason(rollout: Rollout, blocks: Iterable[ObservationBlock]) -> str:
    """Explains that too many of the step's requests were not sent; empty if few were not.

    Only blocks since the step began, or since a person resumed it, count.
    """
    step = [
        block
        for block in blocks
        if block.weight_bps == rollout.current.weight_bps
        and block.closed_at >= rollout.step_started_at
    ]
    assigned = sum(block.assigned.canary for block in step)
    not_sent: dict[str, ArmSplit] = {}
    for block in step:
        for key, split in block.assigned_outcomes.items():
            if split_key(key)[0] is OutcomeKind.NOT_SENT:
                not_sent[key] = _add_splits(not_sent.get(key), split)
    unsent = sum(split.canary for split in not_sent.values())
    if unsent <= MOST_NOT_SENT * assigned:
        return ""
    key = max(not_sent, key=lambda name: (not_sent[name].canary, name))
    control = sum(split.failures - split.canary for split in not_sent.values())
    return (
        f"{unsent:,} of the candidate's {assigned:,} requests in this step "
        f"({format_percent(unsent / assigned, significant=2)}) were not sent, and {control:,} "
        f"of the incumbent's. The most frequent reason is: "
        f"{_lower_first(outcome_name(key))}. A step needs less than "
        f"{format_percent(MOST_NOT_SENT)}"
    )


def unsupported_share(rollout: Rollout, evidence: CanaryEvidence) -> UnsupportedShare | None:
    """Returns the share of requests that the candidate cannot take; None if it is small, or an
    approver acknowledged it.
    """
    found = find_unsupported(evidence.assigned, evidence.outcomes, evidence.uncounted)
    is_known = ExclusionCause.UNSUPPORTED.value in (rollout.acknowledged or ())
    return None if is_known or found.share <= MOST_UNSUPPORTED else found


def unsupported_reason(rollout: Rollout, evidence: CanaryEvidence) -> str:
    """Explains that the candidate cannot take many requests; empty if it can."""
    found = unsupported_share(rollout, evidence)
    if found is None:
        return ""
    return (
        f"{found.text}. After a promotion, only a fallback could answer them. Give these "
        "requests a route of their own, or accept it once with `swapproof canary resume`"
    )


def counted_reason(evidence: CanaryEvidence) -> str:
    """Explains that too few assigned requests of an arm are evidence for a certificate.

    Returns an empty text if enough are, or if the blocks record no outcomes.
    """
    if not evidence.outcomes:
        return ""
    whole = evidence.assigned
    unknown = {
        key: split
        for key, split in evidence.outcomes.items()
        if READINGS[Guardrail.ERRORS][split_key(key)[0]] is Reading.UNKNOWN
    }
    arms = (
        (
            "candidate",
            whole.canary,
            {key: split.canary for key, split in unknown.items()},
        ),
        (
            "incumbent",
            whole.failures - whole.canary,
            {key: split.failures - split.canary for key, split in unknown.items()},
        ),
    )
    return next(filter(None, (_counted_text(*arm) for arm in arms)), "")


def _counted_text(
    name: str,
    assigned: int,
    unknown: Mapping[str, int],
) -> str:
    counted = assigned - sum(unknown.values())
    if counted >= LEAST_COUNTED * assigned:
        return ""
    key = max(unknown, key=lambda one: (unknown[one], one))
    percent = format_percent(counted / assigned, significant=2)
    return (
        f"A certificate needs {format_percent(LEAST_COUNTED)} of each arm's assigned requests "
        f"as evidence, and the {name} has {counted:,} of {assigned:,} ({percent}). The most "
        f"frequent other outcome is: {_lower_first(outcome_name(key))} ({unknown[key]:,})"
    )


def saved_by_key_reason(rollout: Rollout, blocks: Sequence[ObservationBlock]) -> str:
    """Explains that one client key saves the canary from a rollback; empty if none does."""
    key = find_saving_key(blocks, rollout.policy)
    if not key:
        return ""
    return (
        f"Without the callers of the client key {key}, the canary would be rolled back. Find "
        "out what these callers do"
    )


def left_out_differences(
    rollout: Rollout,
    blocks: Sequence[ObservationBlock],
    evidence: CanaryEvidence,
) -> tuple[LeftOutDifference, ...]:
    """Returns the differences of the arms' left-out shares that would change the step.

    They change the step if, with the canary's excess as failures, it would be rolled back or no
    longer certified. Excludes the reasons that an approver acknowledged.

    Args:
        blocks: in the order of number.
        evidence: of these blocks.
    """
    acknowledged = rollout.acknowledged or ()
    fired = [one for one in compare_left_out(blocks) if one.reason not in acknowledged]
    if not fired:
        return ()
    bounded = bound_blocks(blocks, [one.reason for one in fired])
    strict = collect_evidence(bounded, rollout.policy)
    loses = rollout.current.certify and _is_certified(evidence) and not _is_certified(strict)
    if strict.block is None and not loses:
        return ()
    return tuple(fired)


def _is_certified(evidence: CanaryEvidence) -> bool:
    return evidence.log_certificate >= evidence.certificate_limit


def left_out_reason_text(differences: Sequence[LeftOutDifference]) -> str:
    """Explains the differences and what an approver can do; empty without differences."""
    if not differences:
        return ""
    return (
        "The arms leave out unlike shares of requests, and the step would not stand if the "
        "candidate's excess were failures. "
        + "; ".join(one.text for one in differences)
        + ". Find the cause, or acknowledge it once with `swapproof canary resume`"
    )


def _add_splits(known: ArmSplit | None, more: ArmSplit) -> ArmSplit:
    if known is None:
        return more
    return ArmSplit(known.failures + more.failures, known.canary + more.canary)


def _lower_first(text: str) -> str:
    return f"{text[:1].lower()}{text[1:]}"
